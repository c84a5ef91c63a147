"""What xl prints, read: ``xl list -v`` and ``xl info``. Pure.

    Name                ID   Mem VCPUs  State   Time(s) UUID                                 Reason-Code ...
    web                  7   128     1  --p---     3.1  0f2e1dd6-6f04-4788-931e-7876b2a7636d        -

The letters of the state are running, blocked, paused, shut down, why, dying; why is one of ``-rscwS``: power-off,
reboot, suspend, crash, watchdog, soft reset (xl_list.c, list_domains).
"""

from __future__ import annotations

import re
from uuid import UUID

from attrs import frozen

from relocd.drivers.qemu.lifecycle import Cause

_LINE = re.compile(
    r"(?P<name>.*?)\s+(?P<domid>\d+)\s+(?P<memory>\d+)\s+(?P<vcpus>\d+)\s+"
    r"(?P<state>[r-][b-][p-][s-][-rscwS?][d-])\s+(?P<time>[0-9.]+)\s+(?P<uuid>[0-9a-f-]{36})\b.*"
)

_CAUSES = {"-": Cause.POWEROFF, "r": Cause.REBOOT, "c": Cause.CRASH, "w": Cause.CRASH, "S": Cause.CRASH}


@frozen
class Seen:
    """One domain as Xen has it now. ``domid`` is Xen's number of it, ``letters`` its state."""

    name: str
    domid: int
    uuid: UUID
    memory_mib: int
    letters: str
    cpu_time_s: float

    @property
    def paused(self) -> bool:
        """The toolstack has paused it."""
        return self.letters[2] == "p"

    @property
    def suspended(self) -> bool:
        """Its guest has suspended itself for a migration, and nobody has told it to go on."""
        return self.letters[3:5] == "ss"

    @property
    def ending(self) -> Cause | None:
        """Why its guest has ended by itself; None if it has not."""
        return _CAUSES.get(self.letters[4]) if self.letters[3] == "s" else None

    @property
    def dying(self) -> bool:
        """It is being destroyed: what is left of it is on its way to Xen's own."""
        return self.letters[5] == "d"


def parse_list(text: str) -> dict[int, Seen]:
    """The domains of ``xl list -v`` by their domid, dom0 among them; lines of another form are passed over."""
    found = {}
    for line in text.splitlines():
        match = _LINE.fullmatch(line.rstrip())
        if match:
            found[int(match["domid"])] = Seen(
                name=match["name"],
                domid=int(match["domid"]),
                uuid=UUID(match["uuid"]),
                memory_mib=int(match["memory"]),
                letters=match["state"],
                cpu_time_s=float(match["time"]),
            )
    return found


def parse_info(text: str) -> dict[str, str]:
    """The lines ``key : value`` of ``xl info``."""
    pairs = (line.partition(":") for line in text.splitlines())
    return {key.strip(): value.strip() for key, colon, value in pairs if colon}
