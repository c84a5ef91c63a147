"""Which decoder and encoder belong to a stream's format."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Final

from attrs import frozen

from relocd.pages import qemu_format
from relocd.pages.decoder import Decoder
from relocd.pages.encoder import Encoder
from relocd.pages.items import PAGE_SIZE
from relocd.pages.qemu_decoder import QemuDecoder
from relocd.pages.qemu_encoder import QemuEncoder
from relocd.pages.stream_format import StreamFormat
from relocd.pages.xen_decoder import XenDecoder
from relocd.pages.xen_encoder import XenEncoder


@frozen
class StreamCodec:
    """Both directions of one format. ``page_stride_bytes`` is what a page takes in the stream, header and all."""

    decoder: Callable[[], Decoder]
    encoder: Callable[[], Encoder]
    page_stride_bytes: int


CODECS: Final[Mapping[StreamFormat, StreamCodec]] = MappingProxyType(
    {
        StreamFormat.OPAQUE: StreamCodec(Decoder, Encoder, PAGE_SIZE),
        StreamFormat.QEMU: StreamCodec(QemuDecoder, QemuEncoder, qemu_format.PAGE_STRIDE),
        StreamFormat.XEN: StreamCodec(XenDecoder, XenEncoder, PAGE_SIZE),
    }
)
