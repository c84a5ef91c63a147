"""A relocation at the level of drivers, step by step, with two threads in the place of the carriers."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Callable

from relocd.model import DomainConfig, DomainState, DomainStatus
from tests.contracts.rigs import Host
from tests.reactor import call, run

#: How far a relocation can have come, in order.
STAGES = ("prepared", "started", "paused", "loaded", "finished")


class Move:
    """One domain from ``source`` to ``target``."""

    def __init__(
        self,
        source: Host,
        target: Host,
        config: DomainConfig,
        *,
        live: bool = True,
        may_throttle: bool = False,
        channels: int = 0,
    ) -> None:
        self.source, self.target, self.config, self._live = source, target, config, live
        self._may_throttle = may_throttle
        self._channels = channels
        self.outgoing = call(source.driver.outgoing, config.uuid)
        self.incoming = call(target.driver.incoming, config)
        self.sockets: list[socket.socket] = []
        self._there: list[socket.socket] = []  # main stream first
        self._kept: list[socket.socket] = []  # channels of the source, which nobody breaks
        self._threads: list[threading.Thread] = []
        self._flows = threading.Event()
        self._flows.set()
        self._lock = threading.Lock()
        self._absorbing = False
        self._absorbed: list[tuple[socket.socket, bytes]] = []
        self._steps: dict[str, Callable[[], None]] = {
            "prepared": self._prepare,
            "started": self._start,
            "paused": lambda: run(self.outgoing.paused()),
            "loaded": self._switch_over,
            "finished": lambda: run(self.outgoing.finished()),
        }

    def to(self, stage: str) -> Move:
        """Go on until ``stage`` is reached."""
        while self._steps:
            name = next(iter(self._steps))
            self._steps.pop(name)()
            if name == stage:
                break
        return self

    def complete(self, *, paused: bool = False) -> Move:
        """To the end: the target owns the domain."""
        self.to("finished")
        run(self.incoming.resume(paused=paused))
        run(self.outgoing.release())
        self.close()
        return self

    def restart_source(self) -> None:
        """The source's daemon is restarted, and takes up what it finds."""
        self.source.restart()
        self.outgoing = call(self.source.driver.outgoing, self.config.uuid)

    def restart_target(self) -> None:
        """The target's daemon is restarted, and takes up what it finds."""
        self.target.restart()
        self.incoming = call(self.target.driver.incoming, self.config)

    def hold(self) -> Move:
        """The carriers take no more and pass nothing on, so that the source gets stuck."""
        self._flows.clear()
        return self

    def absorb(self) -> None:
        """The carriers take all that they are given and pass nothing on."""
        with self._lock:
            self._absorbing = True

    def go_on(self) -> None:
        """They pass on what they hold, and go on."""
        with self._lock:
            self._absorbing = False
            absorbed, self._absorbed = self._absorbed, []
            with contextlib.suppress(OSError):
                for destination, data in absorbed:
                    destination.sendall(data)
        self._flows.set()

    def cut(self) -> None:
        """The carriers die."""
        self.go_on()
        for end in self.sockets:
            if end not in self._kept:
                with contextlib.suppress(OSError):
                    end.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """Nothing of the stream is left open."""
        self.cut()
        for thread in self._threads:
            thread.join()
        for end in self.sockets:
            end.close()

    def here(self) -> DomainStatus | None:
        return call(self.source.driver.get, self.config.uuid)

    def there(self) -> DomainStatus | None:
        return call(self.target.driver.get, self.config.uuid)

    def states(self) -> tuple[DomainState | None, DomainState | None]:
        """What the domain is on the source and on the target."""
        here, there = self.here(), self.there()
        return here.state if here else None, there.state if there else None

    def _prepare(self) -> None:
        stream = run(self.incoming.prepare(channels=self._channels))
        self._there = [stream, *call(self.incoming.channels)]
        assert len(self._there) == 1 + self._channels
        self.sockets += self._there

    def _start(self) -> None:
        stream = run(
            self.outgoing.start(
                live=self._live,
                downtime_limit_ms=20,
                may_throttle=self._may_throttle,
                channels=self._channels,
            )
        )
        self._kept = [*call(self.outgoing.channels)]
        here = [stream, *self._kept]
        self.sockets += here
        for pair in zip(here, self._there, strict=True):
            for source, destination in (pair, pair[::-1]):
                pump = threading.Thread(target=self._pump, args=(source, destination), daemon=True)
                self._threads.append(pump)
                pump.start()

    def _switch_over(self) -> None:
        run(self.outgoing.switch_over())
        run(self.incoming.loaded())

    def _pump(self, source: socket.socket, destination: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(1 << 16):
                self._flows.wait()
                self._pass_on(destination, data)
        if destination not in self._kept:
            with contextlib.suppress(OSError):
                destination.shutdown(socket.SHUT_WR)

    def _pass_on(self, destination: socket.socket, data: bytes) -> None:
        with self._lock:
            if self._absorbing:
                self._absorbed.append((destination, data))
                return
        destination.sendall(data)
