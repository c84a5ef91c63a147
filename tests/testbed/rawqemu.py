"""QEMU without relocd: the peer to compare with, and a source of genuine migration streams."""

from __future__ import annotations

import os
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import IO, Any

from attrs import define, field, frozen

from .commands import TestbedError
from .console import Console
from .image import GuestImage
from .network import Host
from .processes import stop_child
from .qmp import Qmp, QmpSilence

BOOT_S = 120.0  # far more than the two seconds it takes: the machine may be busy
GUEST_MAC = "52:54:00:4c:4f:10"
WATCH_S = 0.1
_ENDS = ("completed", "failed", "cancelled")


def accelerator() -> str:
    """``kvm`` only where it works: /dev/kvm opens on machines too whose processor cannot run a guest."""
    flags = set(Path("/proc/cpuinfo").read_text().split())
    return "kvm" if os.access("/dev/kvm", os.R_OK | os.W_OK) and flags & {"vmx", "svm"} else "tcg"


#: QEMU's own granularity of a memory size.
_PAD_KIB = 8


@frozen
class MigrationFigures:
    """A migration as the source's QEMU saw it."""

    completed: bool
    total_s: float
    downtime_ms: int
    sent_bytes: int
    rounds: int


@define(eq=False)
class RawQemu:
    """One QEMU with a test guest; a context manager. Without ``host`` and ``tap`` the guest has no network.

    ``pad``: under emulation the guest gets a little more memory, without which QEMU before 8.2.3 loses some of what a
    guest writes while it migrates (docs/adr/0001). Only who measures QEMU as it is goes without.
    """

    image: GuestImage
    memory_mib: int = 128
    cmdline: str = ""
    host: Host | None = None
    tap: str = ""
    incoming: bool = False
    mac: str = GUEST_MAC
    extra: Sequence[str] = ()
    pad: bool = True
    process: subprocess.Popen[bytes] = field(init=False)
    qmp: Qmp = field(init=False)
    console: Console = field(init=False)
    _stderr: IO[bytes] = field(init=False)

    def __enter__(self) -> RawQemu:
        if self.tap and self.host:
            self.host.add_tap(self.tap)
        self._stderr = tempfile.TemporaryFile()
        monitor, monitor_end = socket.socketpair()
        serial, serial_end = socket.socketpair()
        with monitor_end, serial_end:
            fds = [monitor_end.fileno(), serial_end.fileno()]
            argv = self._argv(*fds)
            if self.host:
                self.process = self.host.popen(argv, stderr=self._stderr, pass_fds=fds)
            else:
                self.process = subprocess.Popen(
                    argv, stdin=subprocess.DEVNULL, stderr=self._stderr, pass_fds=fds, start_new_session=True
                )
        self.console = Console(serial)
        try:
            self.qmp = Qmp(monitor)
        except (TestbedError, OSError) as error:
            stop_child(self.process)
            self._stderr.seek(0)
            raise TestbedError(f"QEMU did not start: {self._stderr.read().decode()[-1000:]}") from error
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        stop_child(self.process)
        self.qmp.close()
        self.console.close()
        self._stderr.close()

    def wait_ready(self, timeout_s: float = BOOT_S) -> None:
        """Return when the guest is up."""
        self.console.wait_for("GUEST READY", timeout_s)

    def migrate_tcp(
        self,
        target: RawQemu,
        address: str,
        *,
        port: int = 4444,
        capabilities: Sequence[str] = (),
        parameters: Mapping[str, Any] | None = None,
        timeout_s: float = 120,
        watch: Callable[[Mapping[str, Any]], None] | None = None,
    ) -> MigrationFigures:
        """Migrate to ``target``, started with ``incoming``, by QEMU's own means. Gives up after ``timeout_s``.

        ``watch`` gets the source's answer to query-migrate every 100 ms, and at the end.
        """
        uri = f"tcp:{address}:{port}"
        for qemu in (self, target):
            qemu.prepare_migration(capabilities, parameters)
        target.qmp.command("migrate-incoming", uri=uri)
        self.qmp.command("migrate", uri=uri)
        try:
            self._wait_end(timeout_s, watch)
        except QmpSilence:
            figures = self.figures()  # asked before it forgets them
            self.qmp.command("migrate_cancel")
            self.qmp.wait_migration(_ENDS, BOOT_S)
            return figures
        figures = self.figures()
        if figures.completed:
            target.qmp.wait_migration(_ENDS, BOOT_S)
        return figures

    def _wait_end(self, timeout_s: float, watch: Callable[[Mapping[str, Any]], None] | None) -> None:
        """Return when the migration has ended, well or not. Raises QmpSilence if it does not within ``timeout_s``."""
        if watch is None:
            self.qmp.wait_migration(_ENDS, timeout_s)
            return
        deadline = time.monotonic() + timeout_s
        ended = False
        while not ended:
            try:
                self.qmp.wait_migration(_ENDS, WATCH_S)
                ended = True
            except QmpSilence:
                if time.monotonic() > deadline:
                    raise
            watch(self.qmp.command("query-migrate"))

    def prepare_migration(
        self, capabilities: Sequence[str] = (), parameters: Mapping[str, Any] | None = None
    ) -> None:
        """Set capabilities (``events`` among them, always), all others off, and parameters.

        A parameter that is not given stays as it is: QEMU's default if nobody set it.
        """
        wanted = {"events", *capabilities}
        known = self.qmp.command("query-migrate-capabilities")
        switches = [
            {"capability": one["capability"], "state": not one["state"]}
            for one in known
            if one["state"] != (one["capability"] in wanted)
        ]
        self.qmp.command("migrate-set-capabilities", capabilities=switches)
        if parameters:
            self.qmp.command("migrate-set-parameters", **parameters)

    def figures(self) -> MigrationFigures:
        """What QEMU says of its last migration."""
        answer = self.qmp.command("query-migrate")
        while answer["status"] == "completed" and not answer.get("total-time"):
            answer = self.qmp.command(
                "query-migrate"
            )  # it says "completed" a moment before it has the figures
        ram = answer.get("ram", {})
        return MigrationFigures(
            completed=answer["status"] == "completed",
            total_s=answer.get("total-time", 0) / 1000,
            downtime_ms=answer.get("downtime", 0),
            sent_bytes=ram.get("transferred", 0),
            rounds=ram.get("dirty-sync-count", 0),
        )

    @property
    def _memory_kib(self) -> int:
        padded = self.pad and accelerator() == "tcg"
        return self.memory_mib * 1024 + (_PAD_KIB if padded else 0)

    def _argv(self, monitor: int, serial: int) -> list[str]:
        argv = ["qemu-system-x86_64", "-nodefaults", "-no-user-config", "-display", "none"]
        argv += [
            "-accel",
            accelerator(),
            "-M",
            "q35",
            "-cpu",
            "qemu64",
            "-m",
            f"{self._memory_kib}K",
        ]
        argv += [
            "-kernel",
            str(self.image.kernel),
            "-initrd",
            str(self.image.ramdisk),
            "-append",
            self.cmdline,
        ]
        argv += ["-chardev", f"socket,id=monitor,fd={monitor}", "-mon", "chardev=monitor,mode=control"]
        argv += ["-chardev", f"socket,id=serial,fd={serial}", "-serial", "chardev:serial"]
        if self.tap:
            argv += ["-netdev", f"tap,id=net,ifname={self.tap},script=no,downscript=no"]
            # Without its boot ROM: the guest does not boot from the network, and looking into it takes time.
            argv += ["-device", f"virtio-net-pci,netdev=net,mac={self.mac},romfile="]
        if self.incoming:
            argv += ["-incoming", "defer"]
        return [*argv, *self.extra]
