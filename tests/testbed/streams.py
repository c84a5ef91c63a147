"""Recording of genuine migration streams: what one QEMU says to another, both directions, as it was said."""

from __future__ import annotations

import socket
import tempfile
import threading
from pathlib import Path
from typing import IO

from attrs import frozen

from .commands import TestbedError
from .image import MEMORY_MIN_MIB, GuestImage, guest_cmdline
from .rawqemu import BOOT_S, MigrationFigures, RawQemu

_CHUNK_BYTES = 1 << 18
_SLOW_BYTES_S = 40 << 20  # until the rounds that were asked for are over: the guest keeps up with that
_UNLIMITED = 0


@frozen
class Recording:
    """A recorded stream: source to target in ``forward``, the return path in ``backward``."""

    forward: Path
    backward: Path
    figures: MigrationFigures


def record_stream(
    image: GuestImage,
    path: Path,
    *,
    memory_mib: int = MEMORY_MIN_MIB,
    fill_mib: int = 16,
    dirty_mb_s: float = 10,
    rounds: int = 3,
    timeout_s: float = 120,
) -> Recording:
    """Record a precopy migration of a working guest, over unix sockets, with the return path open, into ``path``.

    It is let go to the switchover once QEMU has begun round ``rounds`` (the final one comes on top). The target must
    run its guest on from where it was, or TestbedError is raised. ``path`` plus ``.return`` is the return path.
    """
    cmdline = guest_cmdline(fill_mib=fill_mib, working_set_mib=fill_mib, dirty_mb_s=dirty_mb_s, console=True)
    recording_backward = path.with_name(path.name + ".return")
    with (
        tempfile.TemporaryDirectory(prefix="relocd-record-") as directory,
        RawQemu(image, memory_mib, cmdline) as source,
        RawQemu(image, memory_mib, cmdline, incoming=True) as target,
        path.open("wb") as forward,
        recording_backward.open("wb") as backward,
    ):
        source.wait_ready()
        source.console.wait_for(f"filled={fill_mib} ", BOOT_S)
        inlet, outlet = Path(directory) / "inlet", Path(directory) / "outlet"
        target.prepare_migration(["return-path"])
        target.qmp.command("migrate-incoming", uri=f"unix:{outlet}")
        with _Tee(inlet, outlet, forward, backward):
            source.prepare_migration(["return-path"], {"max-bandwidth": _SLOW_BYTES_S, "downtime-limit": 1})
            source.qmp.command("migrate", uri=f"unix:{inlet}")
            _wait_round(source, rounds, timeout_s)
            source.qmp.command("migrate-set-parameters", max_bandwidth=_UNLIMITED, downtime_limit=2000)
            for qemu in (source, target):
                qemu.qmp.wait_migration(("completed",), timeout_s)
        target.console.wait_for("MEMCHECK", BOOT_S)
        return Recording(path, recording_backward, source.figures())


def _wait_round(source: RawQemu, rounds: int, timeout_s: float) -> None:
    """Return when round ``rounds`` begins. Raises TestbedError if the migration ends or stalls before."""
    while True:
        event = source.qmp.wait_event(("MIGRATION_PASS", "MIGRATION"), timeout_s)
        if event["event"] == "MIGRATION_PASS" and event["data"]["pass"] >= rounds:
            return
        if event["data"].get("status") in ("completed", "failed"):
            raise TestbedError(
                f"the migration ended before round {rounds}: {source.qmp.command('query-migrate')}"
            )


class _Tee:
    """Listens on ``inlet``, connects on to ``outlet``, copies both directions and keeps what passed."""

    def __init__(self, inlet: Path, outlet: Path, forward: IO[bytes], backward: IO[bytes]) -> None:
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(inlet))
        self._listener.listen(1)
        self._outlet = outlet
        self._files = (forward, backward)
        self._thread = threading.Thread(target=self._run, name="tee", daemon=True)

    def __enter__(self) -> _Tee:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._thread.join(BOOT_S)
        self._listener.close()

    def _run(self) -> None:
        try:
            source, _ = self._listener.accept()
        except OSError:
            return  # closed before anybody came
        with source, socket.socket(socket.AF_UNIX) as target:
            target.connect(str(self._outlet))
            back = threading.Thread(
                target=_copy, args=(target, source, self._files[1]), name="tee-back", daemon=True
            )
            back.start()
            _copy(source, target, self._files[0])
            back.join(BOOT_S)


def _copy(source: socket.socket, target: socket.socket, record: IO[bytes]) -> None:
    """Copy until the end of the stream, and pass the end on."""
    try:
        while data := source.recv(_CHUNK_BYTES):
            record.write(data)
            target.sendall(data)
        target.shutdown(socket.SHUT_WR)
    except OSError:
        return  # one side hung up: the QEMU in question says why
