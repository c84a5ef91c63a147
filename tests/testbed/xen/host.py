"""One Xen host: a QEMU that emulates it, and a login to its dom0."""

from __future__ import annotations

import contextlib
import shlex
import socket
import subprocess
import tempfile
import time
from pathlib import Path
from types import TracebackType

from attrs import define, field

from ..commands import TestbedError, run
from ..network import SUBNET, Host
from ..processes import stop_child
from ..qmp import Qmp
from .image import HOST_ALIAS, XenImage

# qemu64 boots Xen, "max" does not; with the rest it is an x86-64-v2, without which NumPy does not start.
CPU = "qemu64,+svm,+npt,+ssse3,+sse4.1,+sse4.2,+popcnt,+cx16,+lahf-lm"
MEMORY_MIB = 1664
DOM0_MIB = 768
BOOT_S = 400.0  # about 50 s on a quiet machine
LOGIN_S = 60.0
COMMAND_S = 300.0
_POLL_S = 0.25
_BOOT_ID = "cat /proc/sys/kernel/random/boot_id"


@define(eq=False)
class XenHost:
    """A host in the namespace of ``segment``, on the tap ``xenN``; a context manager: started, ready for commands.

    ``disk`` is what it writes to; ``state`` the file of a machine that was frozen when it was ready, else it boots.
    """

    image: XenImage
    segment: Host
    number: int
    disk: Path
    state: Path | None = None
    process: subprocess.Popen[bytes] = field(init=False)
    qmp: Qmp = field(init=False)
    _login: subprocess.Popen[bytes] | None = field(init=False, default=None)
    _directory: tempfile.TemporaryDirectory[str] = field(init=False)

    @property
    def address(self) -> str:
        """The IP address of dom0."""
        return f"{SUBNET}.{self.number}"

    @property
    def tap(self) -> str:
        """What the host is connected to."""
        return f"xen{self.number}"

    @property
    def serial_log(self) -> Path:
        """What Xen and dom0 said on their console."""
        return Path(self._directory.name) / "serial.log"

    def __enter__(self) -> XenHost:
        self._directory = tempfile.TemporaryDirectory(prefix="relocd-xen-")
        try:
            self._power_on()
            self._log_in()
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._log_out()
        if hasattr(self, "process"):
            stop_child(self.process)
        if hasattr(self, "qmp"):
            self.qmp.close()
        self._directory.cleanup()

    def run(
        self, command: str, *, check: bool = True, timeout_s: float = COMMAND_S, data: bytes = b""
    ) -> str:
        """Run a shell command in dom0 and return what it printed. Raises TestbedError if it fails."""
        try:
            done = subprocess.run(
                self._ssh(command), input=data, capture_output=True, timeout=timeout_s, check=False
            )
        except subprocess.TimeoutExpired as error:
            said = (error.stdout or b"") + (error.stderr or b"")
            raise TestbedError(
                f"{self.tap}: '{command}': no end after {timeout_s} s: {said.decode(errors='replace')[-2000:]}"
            ) from error
        output = done.stdout.decode(errors="replace")
        if check and done.returncode:
            told = (done.stderr.decode(errors="replace").strip() + "\n" + output)[-4000:]
            raise TestbedError(f"{self.tap}: '{command}': exit code {done.returncode}: {told}")
        return output

    def start(self, command: str) -> subprocess.Popen[bytes]:
        """Start a command in dom0 and return at once; its output is in a pipe."""
        return self.segment.popen(self._ssh_words(command), stdout=subprocess.PIPE, stderr=subprocess.STDOUT)

    def put(self, path: Path, target: str) -> None:
        """Copy a file or directory into the directory ``target`` of dom0."""
        archive = subprocess.run(
            ["tar", "-C", str(path.parent), "--exclude=__pycache__", "-c", path.name],
            capture_output=True,
            check=True,
        )
        self.run(f"mkdir -p {shlex.quote(target)} && tar -C {shlex.quote(target)} -x", data=archive.stdout)

    def freeze(self, state: Path) -> None:
        """Write the whole machine to ``state`` and end it; its disk belongs to that state from then on."""
        self.run("sync; echo 3 > /proc/sys/vm/drop_caches")
        self._log_out()
        self.qmp.command("migrate-set-capabilities", capabilities=[{"capability": "events", "state": True}])
        self.qmp.command("stop")
        self.qmp.command("migrate-set-parameters", max_bandwidth=0)
        self.qmp.command("migrate", uri=f"exec:zstd -q -1 > {shlex.quote(str(state))}")
        if self.qmp.wait_migration(("completed", "failed"), BOOT_S) != "completed":
            raise TestbedError("the state of the Xen host could not be written")
        self.qmp.command("quit")
        self.process.wait()

    def reboot(self) -> None:
        """As an administrator does it; return when dom0 takes commands again and all its services have started."""
        before = self.run(_BOOT_ID)
        self.run("systemctl reboot", check=False)
        deadline = time.monotonic() + BOOT_S
        while time.monotonic() < deadline:
            self._log_out()
            with contextlib.suppress(TestbedError):  # it is still on its way down
                self._log_in()
                if self.run(_BOOT_ID) != before:
                    break
            time.sleep(_POLL_S)  # a machine that reboots tells nobody when it has
        else:
            raise TestbedError(f"{self.tap} does not come back")
        self.run("systemctl is-system-running --wait || true", timeout_s=BOOT_S)

    def _log_out(self) -> None:
        login, self._login = self._login, None
        if login:
            stop_child(login)

    def _power_on(self) -> None:
        ours, theirs = socket.socketpair()
        with theirs:
            argv = self.argv(theirs.fileno())
            self.process = self.segment.popen(argv, pass_fds=[theirs.fileno()])
        self.qmp = Qmp(ours)
        if self.state:
            self._thaw()

    def _thaw(self) -> None:
        """It was frozen while it was stopped, and stays so until it is told to go on."""
        deadline = time.monotonic() + BOOT_S
        while self.qmp.command("query-status")["status"] == "inmigrate":
            if time.monotonic() > deadline:
                raise TestbedError(f"{self.tap} does not come out of its snapshot")
            time.sleep(_POLL_S)
        self.qmp.command("cont")

    def _log_in(self) -> None:
        """Open the connection that all commands share: an emulated key exchange costs more than a second."""
        deadline = time.monotonic() + BOOT_S
        while time.monotonic() < deadline:
            if self._login is None or self._login.poll() is not None:
                self._login = self.segment.popen(self._ssh_words("-M", "-N"))
            check = subprocess.run(self._ssh("-O", "check"), capture_output=True, check=False)
            if check.returncode == 0:
                self.run(f"date -s @{time.time():.3f} > /dev/null")
                return
            if self.process.poll() is not None:
                break
            time.sleep(_POLL_S)
        raise TestbedError(f"no login to {self.tap}: {self.serial_log.read_text(errors='replace')[-2000:]}")

    def _ssh(self, *words: str) -> list[str]:
        return self.segment.argv(self._ssh_words(*words))

    def _ssh_words(self, *words: str) -> list[str]:
        options = {
            "BatchMode": "yes",
            "IdentitiesOnly": "yes",
            "IdentityFile": str(self.image.ssh_key),
            "UserKnownHostsFile": str(self.image.known_hosts),
            "HostKeyAlias": HOST_ALIAS,
            "StrictHostKeyChecking": "yes",
            "ConnectTimeout": "20",
            "LogLevel": "ERROR",
            "ControlPath": f"{self._directory.name}/ssh",
            "ServerAliveInterval": "20",
            "ServerAliveCountMax": "30",
        }
        settings = [word for key, value in options.items() for word in ("-o", f"{key}={value}")]
        host = f"root@{self.address}"
        if words[0].startswith("-"):
            return ["ssh", "-F", "none", *settings, *words, host]
        return ["ssh", "-F", "none", *settings, host, *words]

    def argv(self, monitor: int) -> list[str]:
        """The command line; ``monitor`` is the descriptor of its QMP connection."""
        dom0 = f"root=/dev/vda rw console=hvc0 quiet audit=0 mitigations=off relocd.host={self.number}"
        argv = ["qemu-system-x86_64", "-nodefaults", "-no-user-config", "-display", "none", "-machine", "pc"]
        argv += ["-accel", "tcg,tb-size=256", "-cpu", CPU, "-smp", "1"]
        argv += ["-m", str(MEMORY_MIB), "-kernel", str(self.image.xen)]
        argv += ["-initrd", f"{self.image.kernel} {dom0},{self.image.initrd}"]
        argv += ["-append", f"dom0_mem={DOM0_MIB}M,max:{DOM0_MIB}M console=com1 com1=115200,8n1 spec-ctrl=no"]
        argv += ["-drive", f"file={self.disk},format=qcow2,if=virtio,cache=unsafe"]
        argv += ["-netdev", f"tap,id=net,ifname={self.tap},script=no,downscript=no"]
        argv += ["-device", f"virtio-net-pci,netdev=net,mac=52:52:4c:58:00:0{self.number}"]
        argv += ["-chardev", f"file,id=serial,path={self.serial_log}", "-serial", "chardev:serial"]
        argv += ["-chardev", f"socket,id=qmp,fd={monitor}"]
        argv += ["-mon", "chardev=qmp,mode=control"]
        if self.state:
            argv += ["-incoming", f"exec:zstd -qdc {shlex.quote(str(self.state))}"]
        return argv


def new_disk(path: Path, backing: Path, kind: str) -> Path:
    """A disk of its own over one that stays as it is (``kind``: ``raw`` or ``qcow2``)."""
    run(["qemu-img", "create", "-q", "-f", "qcow2", "-b", backing, "-F", kind, path])
    return path
