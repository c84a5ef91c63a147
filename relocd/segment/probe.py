"""The probe frame: its layout, and the key that only the two ends of one dialogue know.

     0  destination: ff:ff:ff:ff:ff:ff, which every bridge and switch of the segment passes on
     6  source: the address of the sending bridge
    12  EtherType 0x88B5
    14  "RLPB"
    18  version, 1
    19  kind: 1 asks, 2 answers
    20  two zero bytes
    22  tag, 16 bytes
    38  zeros up to 60 bytes, the least that Ethernet carries

The tag is the beginning of an HMAC-SHA256 over version, kind and the bridge's name, with a key made of one random
number from each side. Who has not heard the dialogue can neither make a probe nor turn a question into an answer.
"""

from __future__ import annotations

import enum
import hashlib
import hmac
import struct
from typing import Final

#: IEEE 802, Local Experimental EtherType 1 (registered for use within one organisation's network).
ETHERTYPE: Final = 0x88B5

#: Each side's part of the key, in bytes.
NONCE_BYTES: Final = 16

BROADCAST: Final = b"\xff" * 6
MIN_FRAME_BYTES: Final = 60
_MAGIC: Final = b"RLPB"
_VERSION: Final = 1
_TAG_BYTES: Final = 16
_HEADER = struct.Struct("!6s6sH4sBBH")
_LENGTH: Final = _HEADER.size + _TAG_BYTES

#: A question is repeated so often [s], and waited for so long. On one segment an answer takes well below 1 ms.
REPEAT_S: Final = 0.05
WAIT_S: Final = 1.0

#: A target answers this long at most [s]: the time of one probe and some for the dialogue.
ANSWERING_S: Final = 3.0


class Kind(enum.IntEnum):
    """Who speaks."""

    ASK = 1
    ANSWER = 2


def probe_key(source_nonce: bytes, target_nonce: bytes) -> bytes:
    """The key of one probe."""
    return hashlib.sha256(b"relocd probe" + source_nonce + target_nonce).digest()


def build(kind: Kind, key: bytes, bridge: str, sender: bytes) -> bytes:
    """A frame to send; ``sender`` is the address of the bridge, six bytes."""
    header = _HEADER.pack(BROADCAST, sender, ETHERTYPE, _MAGIC, _VERSION, kind, 0)
    return (header + _tag(kind, key, bridge)).ljust(MIN_FRAME_BYTES, b"\0")


def is_probe(frame: bytes, kind: Kind, key: bytes, bridge: str) -> bool:
    """Is this a frame of that kind, from the other end of our own dialogue? False for anything else."""
    if len(frame) < _LENGTH:
        return False
    _, _, ethertype, magic, version, found, _ = _HEADER.unpack_from(frame)
    if (ethertype, magic, version, found) != (ETHERTYPE, _MAGIC, _VERSION, kind):
        return False
    return hmac.compare_digest(frame[_HEADER.size : _LENGTH], _tag(kind, key, bridge))


def _tag(kind: Kind, key: bytes, bridge: str) -> bytes:
    said = bytes((_VERSION, kind)) + bridge.encode()
    return hmac.digest(key, said, "sha256")[:_TAG_BYTES]
