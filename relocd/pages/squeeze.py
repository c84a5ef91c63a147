"""zstd, one frame a batch, with limits. One compressor a thread; batches do not refer to each other."""

from __future__ import annotations

from typing import Final

from relocd.errors import StreamError
from relocd.pages.items import Buffer
from relocd.pages.zstd import (
    DecompressionParameter,
    ZstdCompressor,
    ZstdDecompressor,
    ZstdError,
    get_frame_info,
)

_WINDOW_LOG_MAX: Final = 21
"""log2 of what a frame may make us remember: 2 MiB, the longest batch. zstd alone would allow 128 MiB."""


class Compressor:
    """Compresses batches; keeps its working memory between them."""

    def __init__(self) -> None:
        self._by_level: dict[int, ZstdCompressor] = {}

    def compress(self, payload: Buffer, level: int) -> bytes:
        """One zstd frame that says how long its content is."""
        compressor = self._by_level.get(level)
        if compressor is None:
            compressor = self._by_level[level] = ZstdCompressor(level)
        return compressor.compress(payload, ZstdCompressor.FLUSH_FRAME)


def decompress(payload: Buffer, decoded_bytes: int) -> bytes:
    """The content of one zstd frame of exactly ``decoded_bytes``. Raises StreamError for anything else.

    Takes no more memory than announced, whatever the frame says of itself.
    """
    try:
        announced = get_frame_info(payload).decompressed_size
        if announced != decoded_bytes:
            raise StreamError(f"a compressed batch has {announced} bytes instead of {decoded_bytes}")
        worker = ZstdDecompressor(options={DecompressionParameter.window_log_max: _WINDOW_LOG_MAX})
        content = worker.decompress(payload, decoded_bytes)
    except ZstdError as error:
        raise StreamError(f"a compressed batch cannot be unpacked: {error}") from None
    if len(content) != decoded_bytes or not worker.eof or worker.unused_data:
        raise StreamError("a compressed batch is not one whole zstd frame")
    return content
