"""A digest of everything that was moved, the same on both ends if and only if the same content came in the
same order.

Each batch is hashed where it is at hand, in a worker thread; the hashes are chained in the order of the
stream. So the digest costs no pass over the data in the one thread that keeps the order.
"""

from __future__ import annotations

import struct
from typing import Final

import xxhash

from relocd.pages.items import Buffer

DIGEST_BYTES: Final = 16
_LINK: Final = struct.Struct(f"!{DIGEST_BYTES}sQ{DIGEST_BYTES}s")


def batch_digest(payload: Buffer) -> bytes:
    """The hash of one batch, as decoded (XXH3-128: against accidents, not against a peer that lies)."""
    return xxhash.xxh3_128_digest(payload)


class StreamDigest:
    """The running digest. Feed batches in the order of the stream."""

    def __init__(self) -> None:
        self.batches = 0
        self._chain = bytes(DIGEST_BYTES)

    def add(self, sequence: int, digest: bytes) -> None:
        """Take in the batch whose :func:`batch_digest` is ``digest``."""
        self._chain = xxhash.xxh3_128_digest(_LINK.pack(self._chain, sequence, digest))
        self.batches += 1

    def join(self, other: StreamDigest) -> None:
        """Take in another stream as a whole."""
        self._chain = xxhash.xxh3_128_digest(_LINK.pack(self._chain, other.batches, other.digest()))
        self.batches += other.batches

    def copy(self) -> StreamDigest:
        """One that goes on by itself from here."""
        twin = StreamDigest()
        twin.batches, twin._chain = self.batches, self._chain
        return twin

    def digest(self) -> bytes:
        """What stands for all batches so far."""
        return self._chain

    def hexdigest(self) -> str:
        """The same as lower-case hex, for messages."""
        return self._chain.hex()
