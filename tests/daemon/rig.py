"""Two daemons in this process, with hypervisors in memory, real connections, carriers and journals between them."""

from __future__ import annotations

import socket
import threading
from pathlib import Path
from typing import Any
from uuid import UUID

from attrs import evolve

from relocd.cli.client import Client, DaemonError
from relocd.config import Config
from relocd.daemon.service import Places, Service
from relocd.drivers.memory import Host, host_at
from tests.reactor import call, run

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
            hosts_allow=(r"127\.0\.0\.1",),
            dom0_min_mem_mib=0,
            **settings,
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

    def migrate(self, port: int, *, live: bool = True) -> dict[str, Any]:
        """Move the domain to whoever listens on ``port``; the outcome, also when it failed."""
        try:
            return self.client.call(
                "migrate", domain="web", host="127.0.0.1", port=port, live=live, timeout_s=60
            )
        except DaemonError as error:
            return error.reply

    def set_config(self, **changes: Any) -> None:
        """Change settings while it runs."""
        self.config = evolve(self.config, **changes)
        call(setattr, self.service._context, "config", self.config)

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


class Wire:
    """A stretch of wire to a daemon's port: passes everything on, and cuts all connections at a chosen message.

    ``cut_at`` is the beginning of a message, such as ``(commit``; with ``before`` the message itself is lost too.
    With ``swallow`` only the message is lost, and the connections stay.
    """

    def __init__(self, port: int, cut_at: str = "", *, before: bool = True, swallow: bool = False) -> None:
        self._target = ("127.0.0.1", port)
        self._cut_at = cut_at.encode()
        self._before = before
        self._swallow = swallow
        self._sockets: list[socket.socket] = []
        self._lock = threading.Lock()
        self.was_cut = threading.Event()
        self._server = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._server.getsockname()[1])
        threading.Thread(target=self._serve, daemon=True).start()

    def close(self) -> None:
        """Cut everything and listen no more."""
        self._server.close()
        self._cut()

    def _serve(self) -> None:
        while True:
            try:
                here, _ = self._server.accept()
                there = socket.create_connection(self._target)
            except OSError:
                return
            with self._lock:
                self._sockets += [here, there]
            for source, target in ((here, there), (there, here)):
                threading.Thread(target=self._pass, args=(source, target), daemon=True).start()

    def _pass(self, source: socket.socket, target: socket.socket) -> None:
        try:
            while data := source.recv(65536):
                at = data.find(self._cut_at) if self._cut_at and not self.was_cut.is_set() else -1
                if at >= 0 and self._swallow:
                    self.was_cut.set()
                    data = data[:at] + data[data.index(b"\n", at) + 1 :]
                elif at >= 0:
                    end = at if self._before else data.index(b"\n", at) + 1
                    target.sendall(data[:end])
                    self.was_cut.set()
                    self._cut()
                    return
                target.sendall(data)
            target.shutdown(socket.SHUT_WR)
        except OSError:
            return

    def _cut(self) -> None:
        with self._lock:
            for sock in self._sockets:
                sock.close() if sock.fileno() < 0 else _sever(sock)


def _sever(sock: socket.socket) -> None:
    try:
        sock.shutdown(socket.SHUT_RDWR)
    except OSError:
        return
