"""Guests as relocd's domains: who they are on the network, what their memory does, and their domain file."""

from __future__ import annotations

from typing import Any

from attrs import field, frozen

from .image import GuestImage, guest_cmdline
from .network import BRIDGE, PREFIX_LENGTH, SUBNET


@frozen
class Guest:
    """A test guest. ``number`` makes its address and MAC; ``options`` are those of ``guest_cmdline``."""

    name: str = "guest"
    number: int = 10
    memory_mib: int = 128
    options: dict[str, Any] = field(factory=dict)

    @property
    def ip(self) -> str:
        """Its address, without the prefix length."""
        return f"{SUBNET}.{self.number}"

    @property
    def mac(self) -> str:
        """The MAC of its only card."""
        return f"52:54:00:4c:4f:{self.number:02x}"

    @property
    def cmdline(self) -> str:
        """Its kernel's command line."""
        return guest_cmdline(f"{self.ip}/{PREFIX_LENGTH}", hostname=self.name, **self.options)

    def domain_file(self, image: GuestImage, *, uuid: str = "", extra_lines: str = "") -> str:
        """The text that ``relocctl create`` and ``xm create`` take."""
        lines = [
            f'name = "{self.name}"',
            f"memory = {self.memory_mib}",
            f'kernel = "{image.kernel}"',
            f'ramdisk = "{image.ramdisk}"',
            f'extra = "{self.cmdline}"',
            f'vif = [ "mac={self.mac}, bridge={BRIDGE}, ip={self.ip}" ]',
        ]
        if uuid:
            lines.append(f'uuid = "{uuid}"')
        return "\n".join([*lines, extra_lines, ""])
