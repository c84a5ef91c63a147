"""Streams of a real QEMU: a golden one, and fresh ones where QEMU is installed."""

from __future__ import annotations

from pathlib import Path

import pytest

from relocd.pages.items import PAGE_SIZE, Item, PageRun, Span
from relocd.pages.qemu_decoder import QemuDecoder
from relocd.pages.qemu_encoder import QemuEncoder
from relocd.pages.squeeze import decompress
from relocd.pages.zstd import get_frame_info
from tests.pages import record_real
from tests.pages.streams import seen

PAGES = {"qemu-7.2-q35": 123, "qemu-10.0-q35": 141}
"""How many pages with content each golden stream has."""
GOLDEN = sorted((Path(__file__).parent / "data").glob("qemu-*.zst"))


def golden(path: Path) -> bytes:
    packed = path.read_bytes()
    size = get_frame_info(packed).decompressed_size
    assert size is not None
    return decompress(packed, size)


def check(stream: bytes) -> list[Item]:
    """What must be true of every stream of a healthy relocation."""
    decoder = QemuDecoder()
    items, used = decoder.decode(stream)
    assert used == len(stream)
    assert bytes(QemuEncoder().encode(items)) == stream
    assert decoder.blocks["pc.ram"] == record_real.MEMORY_MIB << 20
    pages = seen(items)
    for block, length in decoder.blocks.items():
        assert {number for name, number, _, _ in pages if name == block} == set(range(length // PAGE_SIZE))
    tail = items[-1]
    assert isinstance(tail, Span)
    assert b"timer" in bytes(tail.data[:64])
    assert bytes(tail.data).endswith(b"}")
    return items


@pytest.mark.parametrize("path", GOLDEN, ids=lambda path: path.stem)
def test_a_golden_stream_is_understood_whole(path: Path) -> None:
    items = check(golden(path))
    assert sum(len(item.numbers) for item in items if isinstance(item, PageRun)) == PAGES[path.stem]


@pytest.mark.parametrize("path", GOLDEN, ids=lambda path: path.stem)
@pytest.mark.parametrize("size", [4097, 65536])
def test_the_law_holds_for_golden_streams_in_pieces(path: Path, size: int) -> None:
    stream = golden(path)
    decoder, encoder = QemuDecoder(), QemuEncoder()
    out, rest = b"", b""
    for start in range(0, len(stream), size):
        data = rest + stream[start : start + size]
        items, used = decoder.decode(data)
        out += bytes(encoder.encode(items))
        rest = data[used:]
    assert out + rest == stream


@pytest.mark.qemu
@pytest.mark.parametrize("running", [False, True])
def test_a_fresh_stream_is_understood_whole(running: bool) -> None:
    check(record_real.record(running=running))
