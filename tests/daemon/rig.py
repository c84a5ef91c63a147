"""Two daemons in this process, with hypervisors in memory, real connections, carriers and journals between them."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from uuid import UUID

from attrs import evolve

from relocd.cli.client import Client, DaemonError
from relocd.config import Config
from relocd.config.keys import KEYS
from relocd.daemon.service import Places, Service
from relocd.drivers.memory import Host, host_at
from relocd.handover.record import Mark
from tests.disk import FILLER, fill
from tests.link import Wire, loopback
from tests.reactor import call, run

SETTLED_S = 30.0
"""For what happens by itself; a test that waits longer has failed."""
DOMAIN = UUID("11111111-2222-4333-8444-555555555555")
DOMAIN_FILE = f'name = "web"\nuuid = "{DOMAIN}"\nmemory = 1\n'


class Daemon:
    """One daemon on loopback, with its own directories; may be stopped and started again."""

    def __init__(self, directory: Path, **settings: Any) -> None:
        self.places = Places(directory / "config.sxp", directory / "state", directory / "run")
        self.config = Config(
            driver="memory",
            relocation_port=free_port(),
            relocation_address="127.0.0.1",
            dom0_min_mem_mib=0,
            **{"hosts_allow": (r"127\.0\.0\.1",)} | settings,
        )
        self.start()

    def start(self) -> None:
        """Start it, again if need be: the port stays the same, as a peer remembers it."""

        def make() -> Service:
            from twisted.internet import reactor

            return Service(reactor, self.config, self.places)

        self.service = call(make)
        run(self.service.start())
        self.client = Client(str(self.places.run_dir / "control.sock"))

    def reload(self) -> None:
        """As on SIGHUP, with the settings that it has: its certificates are read again."""
        lines = [f"({key.name} {key.kind.show(getattr(self.config, key.field))})\n" for key in KEYS]
        self.places.config_file.write_text("".join(lines))
        call(self.service.reload)

    def stop(self) -> None:
        run(self.service.stop())

    @property
    def port(self) -> int:
        return self.config.relocation_port

    @property
    def host(self) -> Host:
        """The hypervisor."""
        return host_at(self.places.run_dir)

    @property
    def runs(self) -> bool:
        """Does the domain run here?"""
        return DOMAIN in self.host.running()

    def states(self) -> dict[str, str]:
        """The domains as 'list' shows them."""
        return {domain["name"]: domain["state"] for domain in self.client.call("list")["domains"]}

    def migrate(self, port: int, *, domain: str = "web", live: bool = True, **more: Any) -> dict[str, Any]:
        """Move the domain to whoever listens on ``port``; the outcome, also when it failed."""
        try:
            return self.client.call(
                "migrate", domain=domain, host="127.0.0.1", port=port, live=live, timeout_s=60, **more
            )
        except DaemonError as error:
            return error.reply

    def lose_domain(self) -> None:
        """The domain's hypervisor ends by itself."""
        call(self.service._context.driver.lose, DOMAIN, "the hypervisor crashed")

    def set_config(self, **changes: Any) -> None:
        """Change settings while it runs."""
        self.config = evolve(self.config, **changes)
        call(setattr, self.service._context, "config", self.config)

    def fill_disk(self) -> None:
        """Leave no room on the file system of the state directory."""
        fill(self.places.state_dir)

    def empty_disk(self) -> None:
        """The opposite of fill_disk."""
        (self.places.state_dir / FILLER).unlink(missing_ok=True)

    def break_journal(self) -> None:
        """From now on every write to the journal fails, as on a full disk."""
        self._pragma("query_only = 1")

    def mend_journal(self) -> None:
        """The opposite of break_journal."""
        self._pragma("query_only = 0")

    def _pragma(self, text: str) -> None:
        journal = self.service._context.journal

        async def work() -> None:
            await journal._run(lambda: journal._db.execute(f"pragma {text}"))

        run(work())


def free_port() -> int:
    """A port that nobody has at the moment."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


def settled(check: Callable[[], bool], *daemons: Daemon) -> bool:
    """Has it become true? Each look asks the daemons something, so that time passes for them."""
    until_s = time.monotonic() + SETTLED_S
    while not check():
        if time.monotonic() > until_s:
            return False
        for daemon in daemons:
            daemon.client.call("info")
    return True


def marks(daemon: Daemon) -> list[Mark]:
    """The marks of all relocations in a journal, oldest first."""
    journal = daemon.service._context.journal

    async def read() -> list[tuple[str]]:
        query = "select mark from relocation order by began_s"
        return await journal._run(lambda: journal._db.execute(query).fetchall())

    return [Mark(mark) for (mark,) in run(read())]


def at_home(source: Daemon, target: Daemon) -> None:
    """The domain runs on the source, nothing is on the target, and both journals say so."""
    ended = settled(lambda: source.runs and not target.host.domains, source, target)
    assert ended, f"{source.states()} {target.states()} {[d.client.call('status') for d in (source, target)]}"
    assert source.states() == {"web": "running"}
    assert settled(lambda: not (set(marks(source)) | set(marks(target))) - {Mark.ABORTED}, source, target)


def arrived(source: Daemon, target: Daemon) -> None:
    """The domain runs on the target, nothing is on the source, and both journals say so."""
    assert settled(lambda: target.runs and not source.host.domains, source, target)
    assert target.states() == {"web": "running"}
    assert settled(lambda: marks(source)[-1:] == [Mark.DONE], source, target)
    assert settled(lambda: marks(target)[-1:] == [Mark.ARRIVED], source, target)


class Held:
    """A relocation that stands still while ``message`` is on its way."""

    def __init__(self, source: Daemon, target: Daemon, message: str) -> None:
        self.wire = Wire(loopback(target.port), message, action="hold")
        self.outcome: dict[str, Any] = {}
        self._waiting = threading.Thread(target=lambda: self.outcome.update(source.migrate(self.wire.port)))
        self._waiting.start()
        assert self.wire.struck.wait(30)

    def go_on(self) -> dict[str, Any]:
        self.wire.release()
        self._waiting.join(60)
        self.wire.close()
        return self.outcome
