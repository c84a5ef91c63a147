"""What the bench moves, and what it notes of a move. Plain data."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from attrs import field, frozen

OWN = "relocd"
"""How the runs of relocd are called among those of all contenders."""


@frozen
class Load:
    """What a guest is and does. Sizes in MiB, the dirty rate in MB/s."""

    memory_mib: int = 2048
    fill_mib: int = 1000
    dirty_mb_s: float = 10
    working_set_mib: int = 256
    content: str = "text"

    def settings(self) -> dict[str, float | str]:
        """For the guest's command line."""
        return {
            "fill_mib": self.fill_mib,
            "working_set_mib": self.working_set_mib,
            "dirty_mb_s": self.dirty_mb_s,
            "content": self.content,
        }


Curve = Sequence[tuple[float, float]]
"""Seconds since the command, and a value."""


@frozen
class Figures:
    """One move. ``total_s`` is from the command to its return; ``wire_bytes`` is what the source's uplink sent,
    ``sent_bytes`` what the mover says that it sent.

    ``blackout_ms`` is the gap in a client's echoes around the switchover, ``gap_ms`` the longest gap of the move;
    None if it did not complete. ``rounds`` is None if the mover does not tell. ``cpu_s`` is the
    processor time of all: both QEMUs, and for relocd both daemons and carriers. Their private memory on the side that
    needs more is ``private_mib``; QEMU alone has none. ``load`` is what the machine did meanwhile, as a number of
    processes. All three are None for one move among several at once, and its ``wire_bytes`` are those of all.
    ``wire`` and ``remaining`` are bytes sent by the uplink and, as the mover says, left to send. ``silences`` are the
    longest times without an echo: when each began, and its length in ms.
    """

    completed: bool
    memory_mib: int
    total_s: float
    wire_bytes: int
    sent_bytes: int
    rounds: int | None
    cpu_s: float | None = None
    load: float | None = None
    downtime_ms: float | None = None
    blackout_ms: float | None = None
    gap_ms: float | None = None
    private_mib: float | None = None
    cpu_by_name: Mapping[str, float] = field(factory=dict)
    wire: Curve = ()
    remaining: Curve = ()
    silences: Curve = ()


Runs = Mapping[str, Sequence[Figures]]
"""All moves, by who moved."""
