"""The hypervisors that the contract is tested on, each with two hosts, "a" and "b"."""

from __future__ import annotations

import shutil
import socket
import subprocess
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol
from uuid import UUID, uuid4

import psutil
from attrs import evolve
from pyroute2 import IPRoute

from relocd.config import Config
from relocd.drivers.base import DomainChanged, Driver, DriverPaths
from relocd.drivers.memory import MemoryDriver, forget_hosts, host_at
from relocd.drivers.qemu.driver import QemuDriver
from relocd.drivers.worker import Worker
from relocd.drivers.xen.driver import XenDriver
from relocd.drivers.xen.listing import Seen, parse_list
from relocd.drivers.xen.store import Store as XenStore
from relocd.host import bootstore
from relocd.model import BootFile, Disk, DomainConfig, Vif
from relocd.net.names import instance_tag, tap_prefix
from relocd.net.tap import Links
from tests.drivers.xen.xenstored import StandinXen
from tests.net.namespace import add_bridge, private_network
from tests.reactor import call, run
from tests.testbed.image import guest_cmdline

BRIDGE = "xenbr0"


class Host:
    """One host: its directories, the driver that runs on it now, and what the driver told.

    Hypervisors of host "b" run as a user of their own, those of "a" as root.
    """

    def __init__(self, name: str, root: Path, make: Callable[[Config, DriverPaths], Driver]) -> None:
        self.root = root / name
        self.paths = DriverPaths(
            state=self.root / "state", run=self.root / "run", boot=self.root / "boot", log=self.root / "log"
        )
        for path in (self.paths.state, self.paths.run, self.paths.boot, self.paths.log):
            path.mkdir(parents=True)
        self.heard: list[DomainChanged] = []
        self._news = threading.Condition()
        self._make = make
        self.driver = self._new()

    def wait_heard(self, count: int) -> None:
        """Wait until the driver has told of so many changes."""
        with self._news:
            assert self._news.wait_for(lambda: len(self.heard) >= count, timeout=20)

    def wait_gone(self, uuid: UUID) -> None:
        """Wait until the driver has told of the end of a domain."""
        with self._news:
            assert self._news.wait_for(
                lambda: any(change.uuid == uuid and change.state is None for change in self.heard), timeout=20
            )

    def copy_boot_files(self, other: Host) -> None:
        """Take over what the store of another host holds, as a relocation does before the domain comes."""
        for path in other.paths.boot.iterdir():
            shutil.copy(path, self.paths.boot)

    def restart(self) -> None:
        """A new driver on the same directories, as after a restart of the daemon."""
        run(self.driver.stop())
        self.driver = self._new()

    def destroy_all(self) -> None:
        """End every domain, whatever it is doing, and stop."""
        for status in call(self.driver.list):
            incoming, outgoing = (
                call(self.driver.incoming, status.config),
                call(self.driver.outgoing, status.uuid),
            )
            if status.state == "incoming":
                run(incoming.discard())
            else:
                run(outgoing.cancel())
                run(self.driver.destroy(status.uuid))
        run(self.driver.stop())

    def _hear(self, change: DomainChanged) -> None:
        with self._news:
            self.heard.append(change)
            self._news.notify_all()

    def _new(self) -> Driver:
        driver = call(self._make, Config(qemu_user="nobody" if self.root.name == "b" else "root"), self.paths)
        call(driver.subscribe, self._hear)
        run(driver.start())
        return driver


class Rig(Protocol):
    """Two hosts of one hypervisor."""

    a: Host
    b: Host
    measures: bool
    """The hypervisor can tell what a guest does to its memory."""

    def config(self) -> DomainConfig:
        """A domain with all that this hypervisor can give it."""

    def boot_file(self, directory: Path, name: str) -> BootFile:
        """A file for a domain to boot from, as an administrator names it: ``kernel`` or ``ramdisk``."""

    def kill(self, host: Host, uuid: UUID) -> None:
        """Take a domain's hypervisor away from it."""

    def leftovers(self, host: Host) -> list[str]:
        """All that is on a host besides the store of boot files."""

    def close(self) -> None:
        """End everything."""


class MemoryRig:
    """Guests in memory."""

    measures = True

    def __init__(self) -> None:
        self._root = Path(tempfile.mkdtemp(prefix="relocd-"))
        self.a = Host("a", self._root, MemoryDriver)
        self.b = Host("b", self._root, MemoryDriver)

    def config(self) -> DomainConfig:
        return _config(self._root, disks=())

    def boot_file(self, directory: Path, name: str) -> BootFile:
        return boot_file(directory, name)

    def kill(self, host: Host, uuid: UUID) -> None:
        assert isinstance(host.driver, MemoryDriver)
        call(host.driver.lose, uuid, "killed")

    def leftovers(self, host: Host) -> list[str]:
        return [str(uuid) for uuid in host_at(host.paths.run).domains]

    def close(self) -> None:
        for host in (self.a, self.b):
            host.destroy_all()
        forget_hosts()
        shutil.rmtree(self._root)


class QemuRig:
    """Real QEMU processes without an operating system in them, in a network of their own."""

    measures = True

    def __init__(self) -> None:
        self._root = Path(tempfile.mkdtemp(prefix="relocd-"))
        self._network = private_network()
        call(self._network.__enter__)
        self._worker = Worker("test")
        run(self._worker.run(add_bridge, BRIDGE))
        self._links = run(self._worker.run(Links))
        self.a = Host("a", self._root, QemuDriver)
        self.b = Host("b", self._root, QemuDriver)

    def config(self) -> DomainConfig:
        disk = self._root / f"disk-{uuid4()}.img"
        disk.write_bytes(bytes(1 << 16))
        return _config(self._root, disks=(Disk(str(disk), "xvda"),))

    def boot_file(self, directory: Path, name: str) -> BootFile:
        return boot_file(directory, name)

    def kill(self, host: Host, uuid: UUID) -> None:
        (process,) = self.processes(host)
        process.kill()

    def leftovers(self, host: Host) -> list[str]:
        files = [str(path) for path in (host.paths.run / "domains").iterdir()]
        files += [str(path) for path in (host.paths.state / "domains").glob("*/*")]
        files += [str(path) for path in host.paths.log.iterdir() if path.name != "qemu-probe.log"]
        return files + [str(process) for process in self.processes(host)] + self.taps(host)

    def taps(self, host: Host) -> list[str]:
        """Names of the taps of one host's daemon."""
        return list(run(self._worker.run(self._links.names, tap_prefix(instance_tag(str(host.paths.run))))))

    def up(self, host: Host) -> list[bool]:
        """Whether the taps of one host are up."""
        return [self._link(name).get("state") == "up" for name in self.taps(host)]

    def add_tap(self, name: str) -> None:
        """A tap as a daemon leaves it that dies."""
        run(self._worker.run(self._links.create_tap, name, mac="fe:00:00:00:00:01", bridge=BRIDGE))

    def close(self) -> None:
        for host in (self.a, self.b):
            host.destroy_all()
        run(self._worker.run(self._links.close))
        call(self._worker.stop)
        call(self._network.__exit__, None, None, None)
        shutil.rmtree(self._root)

    def _link(self, name: str) -> Any:
        def ask() -> Any:
            with IPRoute() as route:
                return route.get_links(socket.if_nametoindex(name))[0]

        return run(self._worker.run(ask))

    def processes(self, host: Host) -> list[psutil.Process]:
        """The QEMUs of one host."""
        found = []
        for process in psutil.process_iter(["cmdline", "status"]):
            if process.info["status"] != psutil.STATUS_ZOMBIE and str(host.root) in " ".join(
                process.info["cmdline"] or []
            ):
                found.append(process)
        return found


class XenRig:
    """Real domains of the Xen host that this runs on; both drivers have the same one under them.

    The guest is Linux, since nothing less suspends itself when xl asks for that.
    """

    BOOT = Path("/root")
    measures = False

    def __init__(self) -> None:
        self._root = Path(tempfile.mkdtemp(prefix="relocd-"))
        self.a = Host("a", self._root, self.make)
        self.b = Host("b", self._root, self.make)

    def make(self, config: Config, paths: DriverPaths) -> Driver:
        """A driver."""
        return XenDriver(config, paths)

    def config(self) -> DomainConfig:
        files = {
            "kernel": self.boot_file(self._root, "kernel"),
            "ramdisk": self.boot_file(self._root, "ramdisk"),
        }
        for host in (self.a, self.b):
            for file in files.values():
                bootstore.put(host.paths.boot, file, limit_bytes=1 << 30)
        return evolve(_config(self._root, disks=()), memory_mib=self.memory_mib, extra=self.extra, **files)

    memory_mib = 128
    extra = guest_cmdline(fill_mib=1, working_set_mib=1).replace("ttyS0", "hvc0")

    def boot_file(self, directory: Path, name: str) -> BootFile:
        real = {"kernel": "vmlinuz", "ramdisk": "initramfs.zst"}[name]
        path = directory / name
        shutil.copy(self.BOOT / real, path)
        if name == "kernel":  # whose loader does not look at what follows
            with path.open("ab") as file:
                file.write(uuid4().bytes)
        return BootFile(str(path))

    def kill(self, host: Host, uuid: UUID) -> None:
        """xl's stream of it may be complete by then: the driver has to hear of its end before anything goes on."""
        subprocess.run(["xl", "destroy", str(self.domids(host)[uuid])], check=True)
        host.wait_gone(uuid)

    def leftovers(self, host: Host) -> list[str]:
        files = [str(path) for path in (host.paths.run / "domains").iterdir()]
        files += [str(path) for path in (host.paths.state / "domains").glob("*/*")]
        files += [str(path) for path in host.paths.log.iterdir()]
        known = set(self.domids(self.a).values()) | set(self.domids(self.b).values())
        return files + [seen.name for seen in self._listed() if seen.domid and seen.domid not in known]

    def close(self) -> None:
        for host in (self.a, self.b):
            host.destroy_all()
        shutil.rmtree(self._root)

    def domids(self, host: Host) -> dict[UUID, int]:
        """Xen's numbers of a host's domains."""
        return {record.uuid: record.domid for record in XenStore(host.paths.state).load()}

    def _listed(self) -> list[Seen]:
        done = subprocess.run(["xl", "list", "-v"], capture_output=True, text=True, check=True)
        return [seen for seen in parse_list(done.stdout).values() if not seen.dying]


class StandinRig(XenRig):
    """The driver of Xen on a stand-in for xl (tests/drivers/xen/standin.py), on any machine and fast."""

    memory_mib = 16
    extra = ""

    def __init__(self) -> None:
        self._xen = StandinXen()
        super().__init__()

    def make(self, config: Config, paths: DriverPaths) -> Driver:
        return XenDriver(config, paths, xenstore=self._xen.socket)

    def boot_file(self, directory: Path, name: str) -> BootFile:
        path = directory / name
        path.write_bytes(uuid4().bytes)
        return BootFile(str(path))

    def close(self) -> None:
        super().close()
        self._xen.close()


def _config(root: Path, disks: tuple[Disk, ...]) -> DomainConfig:
    uuid = uuid4()
    tail = ":".join(f"{byte:02x}" for byte in uuid.bytes[:3])
    return DomainConfig(
        name=f"web-{uuid.hex[:8]}",
        uuid=uuid,
        memory_mib=16,
        vifs=(Vif(f"00:16:3e:{tail}", BRIDGE),),
        disks=disks,
    )


def boot_file(directory: Path, name: str) -> BootFile:
    """A file as an administrator names it, with the header of a Linux kernel (boot protocol 2.02)."""
    path = directory / name
    content = bytearray(8192)
    content[0x1F1] = 4  # sectors of setup code
    content[0x202:0x208] = b"HdrS\x02\x02"
    path.write_bytes(content + name.encode())
    return BootFile(str(path))


RIGS: dict[str, Callable[[], Rig]] = {"memory": MemoryRig, "qemu": QemuRig, "xl": StandinRig, "xen": XenRig}
