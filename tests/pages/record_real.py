"""Real QEMU processes that migrate, and what goes over their wire.

As a program it writes a golden file: ``python -m tests.pages.record_real tests/pages/data/NAME.zst``.
"""

from __future__ import annotations

import json
import select
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from relocd.pages.zstd import ZstdCompressor

QEMU = shutil.which("qemu-system-x86_64")
PATIENCE_S = 30.0
MEMORY_MIB = 32
BANDWIDTH = 4 << 20
"""Bytes per second: so slow that the firmware dirties pages while they are sent, and there are several rounds."""


class Qemu:
    """One QEMU without a guest but its firmware, and its QMP connection."""

    def __init__(self, directory: Path, name: str, *options: str) -> None:
        assert QEMU is not None, "install qemu-system-x86"
        server = _listen(directory / f"{name}.qmp")
        self.process = subprocess.Popen(
            [QEMU, "-accel", "tcg", "-M", "q35", "-m", str(MEMORY_MIB), "-nodefaults", "-display", "none",
             "-qmp", f"unix:{server.getsockname()},server=off", *options],
            stdin=subprocess.DEVNULL,
        )  # fmt: skip
        with server:
            self._qmp = server.accept()[0]
        self._lines = self._qmp.makefile("r", encoding="utf-8")
        self._events: list[dict[str, Any]] = []
        self._read()
        self.command("qmp_capabilities")
        self.command(
            "migrate-set-capabilities",
            capabilities=[{"capability": c, "state": True} for c in ("return-path", "events")],
        )
        self.command("migrate-set-parameters", **{"max-bandwidth": BANDWIDTH, "downtime-limit": 1})

    def command(self, name: str, **arguments: Any) -> Any:
        """Run a QMP command; return what it returns."""
        self._qmp.sendall(json.dumps({"execute": name, "arguments": arguments}).encode() + b"\n")
        while "return" not in (answer := self._read()):
            assert "error" not in answer, answer
            self._events.append(answer)
        return answer["return"]

    def spread(self, channels: int) -> None:
        """Migrate over so many channels beside the main connection, compressed."""
        self.command("migrate-set-capabilities", capabilities=[{"capability": "multifd", "state": True}])
        self.command(
            "migrate-set-parameters", **{"multifd-channels": channels, "multifd-compression": "zstd"}
        )

    def wait_for_migration(self, *states: str) -> str:
        """Wait until the migration is in one of these states; return it."""
        while True:
            event = self._events.pop(0) if self._events else self._read()
            if event.get("event") == "MIGRATION" and event["data"]["status"] in states:
                return str(event["data"]["status"])

    def memory(self, directory: Path) -> bytes:
        """The guest's memory as it is now."""
        path = directory / f"{self.process.pid}.memory"
        self.command("pmemsave", val=0, size=MEMORY_MIB << 20, filename=str(path))
        return path.read_bytes()

    def stop(self) -> None:
        """End the process."""
        self._lines.close()
        self._qmp.close()
        self.process.kill()
        self.process.wait()

    def _read(self) -> dict[str, Any]:
        line = self._lines.readline()
        assert line, "QEMU is gone"
        answer: dict[str, Any] = json.loads(line)
        return answer


@contextmanager
def migrating(*, running: bool) -> Iterator[tuple[Qemu, Qemu, socket.socket, socket.socket]]:
    """Two QEMUs in a migration, and the two sockets that somebody has to join: from the source, to the target.

    The source's guest has run its firmware for a moment, or not at all; the target's stays paused.
    """
    with spreading(0, running=running) as (source, target, (from_source,), (to_target,)):
        yield source, target, from_source, to_target


@contextmanager
def spreading(
    channels: int, *, running: bool
) -> Iterator[tuple[Qemu, Qemu, list[socket.socket], list[socket.socket]]]:
    """The same over several connections, the main one first. Once they are made the target's QEMU answers only when
    something has come."""
    with tempfile.TemporaryDirectory() as name, ExitStack() as stack:
        directory = Path(name)
        server = stack.enter_context(_listen(directory / "out"))
        source = Qemu(directory, "source", *(() if running else ("-S",)))
        stack.callback(source.stop)
        target = Qemu(directory, "target", "-S", "-incoming", "defer")
        stack.callback(target.stop)
        for qemu in (source, target) if channels else ():
            qemu.spread(channels)
        target.command("migrate-incoming", uri=f"unix:{directory}/in")
        to_target = [stack.enter_context(socket.socket(socket.AF_UNIX)) for _ in range(1 + channels)]
        for sock in to_target:
            sock.connect(f"{directory}/in")
        source.command("migrate", uri=f"unix:{server.getsockname()}")
        from_source = [stack.enter_context(server.accept()[0]) for _ in range(1 + channels)]
        yield source, target, from_source, to_target


def record(*, running: bool) -> bytes:
    """All that a source QEMU sends while it migrates to a target QEMU."""
    with migrating(running=running) as (source, target, from_source, to_target):
        out = bytearray()
        relay(from_source, to_target, out.extend)
        assert source.wait_for_migration("completed", "failed") == "completed"
        target.wait_for_migration("completed")
        return bytes(out)


def relay(from_source: socket.socket, to_target: socket.socket, tee: Callable[[bytes], object]) -> None:
    """Join two sockets, both ways, until the source has closed its side."""
    others = {from_source: to_target, to_target: from_source}
    while True:
        ready, _, _ = select.select(list(others), [], [], PATIENCE_S)
        assert ready, "nothing moves"
        for sock in ready:
            data = sock.recv(1 << 20)
            if not data and sock is from_source:
                return
            if not data:
                del others[sock]
            elif sock is from_source:
                tee(data)
                to_target.sendall(data)
            else:
                from_source.sendall(data)


def _listen(path: Path) -> socket.socket:
    """A server that waits for one QEMU to connect."""
    server = socket.socket(socket.AF_UNIX)
    server.bind(str(path))
    server.listen()
    server.settimeout(PATIENCE_S)
    return server


if __name__ == "__main__":
    compressor = ZstdCompressor(19)
    Path(sys.argv[1]).write_bytes(compressor.compress(record(running=True), ZstdCompressor.FLUSH_FRAME))
