"""What every part of the daemon is given, built once in ``service``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from attrs import define, field

from relocd import __version__
from relocd.config import Config
from relocd.daemon.spares import Spares
from relocd.daemon.trust import Trust
from relocd.drivers.base import Driver
from relocd.host.facts import host_name
from relocd.journal import Journal
from relocd.wire.messages import Hello

if TYPE_CHECKING:
    from relocd.daemon.tunnels import Tunnels


@define
class Context:
    """The daemon's surroundings. ``config`` is replaced as a whole when it is reloaded.

    ``reactor`` is Twisted's global reactor, whose interfaces are too many to name as one type. ``port`` is the port
    really listened on, 0 without a listener. ``tunnels`` is set by the register of relocations, which they depend on.
    """

    reactor: Any
    config: Config
    driver: Driver
    carriers: Spares
    journal: Journal
    trust: Trust
    boot_dir: Path
    log_dir: Path
    config_file: Path
    state_dir: Path
    run_dir: Path
    port: int = 0
    tunnels: Tunnels = field(init=False)

    def hello(self) -> Hello:
        """How this host introduces itself."""
        return Hello(software=f"relocd {__version__}", host=host_name(), port=self.port)
