"""zstd with limits."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relocd.errors import StreamError
from relocd.pages.limits import BATCH_BYTES_MAX
from relocd.pages.squeeze import Compressor, decompress
from relocd.pages.zstd import ZstdCompressor

CONTENT = b"the quick brown fox " * 1000


@given(st.binary(min_size=1, max_size=2000), st.sampled_from([1, 3]))
def test_content_comes_back(content: bytes, level: int) -> None:
    compressor = Compressor()
    for _ in range(2):
        assert decompress(compressor.compress(content, level), len(content)) == content


@given(st.binary(max_size=300), st.integers(0, BATCH_BYTES_MAX))
def test_any_bytes_are_an_error(data: bytes, size: int) -> None:
    with pytest.raises(StreamError):
        decompress(b"\0" + data, size)


@given(st.data())
def test_damage_is_an_error_or_the_right_size(data: st.DataObject) -> None:
    packed = bytearray(Compressor().compress(CONTENT, 1))
    packed[data.draw(st.integers(0, len(packed) - 1))] ^= data.draw(st.integers(1, 255))
    with contextlib.suppress(StreamError):
        assert len(decompress(packed, len(CONTENT))) == len(CONTENT)


def test_a_bomb_is_refused_before_it_goes_off() -> None:
    bomb = Compressor().compress(bytes(64 << 20), 1)
    with pytest.raises(StreamError, match="67108864 bytes instead of 1000"):
        decompress(bomb, 1000)


def test_a_frame_of_unknown_size_is_refused() -> None:
    compressor = ZstdCompressor(1)
    packed = compressor.compress(CONTENT) + compressor.flush()
    with pytest.raises(StreamError, match="None bytes instead of"):
        decompress(packed, len(CONTENT))


@pytest.mark.parametrize("change", [lambda p: p + b"x", lambda p: p[:-1], lambda p: p + p])
def test_more_or_less_than_one_frame_is_refused(change: object) -> None:
    assert callable(change)
    with pytest.raises(StreamError, match="not one whole"):
        decompress(change(Compressor().compress(CONTENT, 1)), len(CONTENT))
