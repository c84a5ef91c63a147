"""Limits of what is taken from a peer. Each is checked before memory is taken. Sizes in bytes."""

from __future__ import annotations

from typing import Final

BATCH_BYTES_MAX: Final = 2 << 20
"""A batch, decoded or on the wire. Senders aim at half a MiB (``batch.TARGET_BYTES``)."""
CHUNK_BYTES_MAX: Final = 256 << 10
"""One piece of a boot file."""
RETURN_BYTES_MAX: Final = 64 << 10
"""One piece of the hypervisor's return path; QEMU's is 16 bytes long in a healthy relocation."""
CHANNEL_BYTES_MAX: Final = 256 << 10
"""One piece of a channel of the hypervisor."""
ABORT_BYTES_MAX: Final = 1 << 10
"""The reason in an ABORT, as UTF-8."""

WINDOW: Final = 16
"""Frames that may be out of order. A sender hands no frame to a lane whose sequence is this much or more above
the oldest one not yet wholly handed to its lane; a receiver keeps this many sequences open. Without the rule
two lanes could wait for each other for ever."""
LANES_MAX: Final = WINDOW - 1
"""Lanes of one relocation: one frame each is under way, and the window must hold them all."""

CHANNELS_MAX: Final = 8
"""Channels of one relocation, each of which has a lane to itself; one more lane has the main stream."""

PASSES_MAX: Final = 1000
"""How often a live relocation may send all of the domain's memory. Nothing forbids a source to go on with rounds for
ever, and an honest one is limited by its own configuration; one that has come this far comes to no end."""
OTHER_BYTES_MAX: Final = 256 << 20
"""What a pass may bring beside the domain's memory: video memory (16 MiB unless asked for more), ROMs, the state of
devices."""
_RECORD_SHARE: Final = 256
"""The header of a page in QEMU's stream is 8 bytes of 4104, and longer where it names the block."""


def stream_bytes_max(memory_bytes: int, *, live: bool) -> int:
    """The longest stream that a domain of so much memory can have. One that stands still is sent once."""
    once = memory_bytes + memory_bytes // _RECORD_SHARE + OTHER_BYTES_MAX
    return once * (PASSES_MAX if live else 1)
