"""Limits of what is taken from a peer. Each is checked before memory is taken. Sizes in bytes."""

from __future__ import annotations

from typing import Final

BATCH_BYTES_MAX: Final = 2 << 20
"""A batch, decoded or on the wire. Senders aim at half a MiB (``batch.TARGET_BYTES``)."""
CHUNK_BYTES_MAX: Final = 256 << 10
"""One piece of a boot file."""
RETURN_BYTES_MAX: Final = 64 << 10
"""One piece of the hypervisor's return path; QEMU's is 16 bytes long in a healthy relocation."""
ABORT_BYTES_MAX: Final = 1 << 10
"""The reason in an ABORT, as UTF-8."""

WINDOW: Final = 16
"""Frames that may be out of order. A sender hands no frame to a lane whose sequence is this much or more above
the oldest one not yet wholly handed to its lane; a receiver keeps this many sequences open. Without the rule
two lanes could wait for each other for ever."""
LANES_MAX: Final = WINDOW - 1
"""Lanes of one relocation: one frame each is under way, and the window must hold them all."""
