"""A fuzzer without guidance for the short run in the tests: the same inputs each time."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence

_NUMBERS = (b"0", b"-1", b"65536", b"99999999999999999999", b"1e9", b"\x00", b"\xff" * 4, b"\xff" * 8)


def mutations(seeds: Sequence[bytes], words: Sequence[bytes], count: int, seed: str) -> Iterator[bytes]:
    """``count`` inputs that begin as one of the seeds."""
    dice = random.Random(seed)
    for _ in range(count):
        data = bytearray(dice.choice(seeds))
        for _ in range(dice.choice((1, 1, 2, 4, 16))):
            _change(data, seeds, words, dice)
        yield bytes(data[: 1 << 16])


def _change(data: bytearray, seeds: Sequence[bytes], words: Sequence[bytes], dice: random.Random) -> None:
    at = dice.randrange(len(data) + 1)
    end = min(len(data), at + dice.choice((1, 1, 2, 8, 64)))
    match dice.randrange(6):
        case 0 if at < len(data):
            data[at] ^= 1 << dice.randrange(8)
        case 1:
            data[at:end] = b""
        case 2:
            data[at:at] = data[at:end] * dice.choice((1, 2, 50))
        case 3:
            data[at:at] = dice.choice((*_NUMBERS, *words))
        case 4:
            other = dice.choice(seeds)
            data[at:] = other[dice.randrange(len(other) + 1) :]
        case _:
            data[at:end] = dice.randbytes(end - at)
