"""relocd on a host of the testbed, as it is installed: the program, its clients, and what it may not leave behind."""

from __future__ import annotations

import json
import os
import re
import select
import signal
import socket
import subprocess
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

from attrs import define, field, frozen

from .commands import TestbedError
from .image import CHECKOUT
from .network import SUBNET, UPLINK, Host
from .processes import kill_all, stop_child

PORT = 8002
READY_S = 60.0
COMMAND_S = 600.0
PROGRAMS = CHECKOUT / ".venv" / "bin"
UNIT = CHECKOUT / "systemd" / "relocd.service"
# Sockets of the daemon and of domains, and the like: what is in the run directory of a daemon without domains.
KEPT_IN_RUN_DIR = frozenset({"control.sock", "lock", "relocd.pid"})
# Names of boot files that are not complete yet begin like this.
UNFINISHED = ("arriving-", ".new-")
STOP_S = 20.0  # the daemon sees relocations to a stated end first


@frozen
class Reply:
    """How a command of an administrator ended."""

    exit_code: int
    stdout: str
    stderr: str

    @property
    def events(self) -> list[Any]:
        """The JSON lines that it printed."""
        return [json.loads(line) for line in self.stdout.splitlines() if line.strip()]

    @property
    def result(self) -> Any:
        """The last of them. Raises IndexError if there is none."""
        return self.events[-1]


@define(eq=False)
class RelocdHost:
    """A daemon on ``host``, with all its files below ``directory``; a context manager.

    ``settings`` go into its configuration file, over the testbed's own: peers of the testbed's subnet are let in.
    ``wrapper`` is a command that starts the daemon instead of the testbed, given as the arguments that follow.
    """

    host: Host
    directory: Path
    settings: Mapping[str, str | int] = field(factory=dict)
    wrapper: Sequence[str | Path] = ()
    process: subprocess.Popen[bytes] | None = field(init=False, default=None)

    @property
    def config_file(self) -> Path:
        """The generated configuration."""
        return self.directory / "relocd-config.sxp"

    @property
    def state_dir(self) -> Path:
        """What outlives a restart."""
        return self.directory / "state"

    @property
    def run_dir(self) -> Path:
        """Sockets and the like."""
        return self.directory / "run"

    @property
    def log_file(self) -> Path:
        """Everything that the daemon printed, over all its starts."""
        return self.directory / "relocd.log"

    @property
    def control_socket(self) -> Path:
        """Where relocctl and xm find it."""
        return self.run_dir / "control.sock"

    def __enter__(self) -> RelocdHost:
        self.directory.mkdir(parents=True, exist_ok=True)
        self.write_config()
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.terminate()
        self.kill_domains()

    def write_config(self, settings: Mapping[str, str | int] | None = None) -> None:
        """Write the configuration file; ``settings`` replace those given before."""
        if settings is not None:
            self.settings = settings
        own: dict[str, str | int] = {
            "xen-relocation-server": "yes",
            "xen-relocation-port": PORT,
            "xen-relocation-hosts-allow": f"{re.escape(SUBNET)}\\.[0-9]+ localhost",
            "dom0-min-mem": 0,
            "qemu-user": "nobody",
        }
        lines = [f"({key} {_quoted(value)})\n" for key, value in {**own, **self.settings}.items()]
        self.config_file.write_text("".join(lines))

    def start(self) -> None:
        """Start the daemon and return once it says that it is ready. Raises TestbedError with its last words."""
        argv: list[str | Path] = [
            *self.wrapper,
            *_privileges(),
            PROGRAMS / "relocd",
            "--config",
            self.config_file,
        ]
        argv += ["--state-dir", self.state_dir, "--run-dir", self.run_dir]
        notify = self.directory / "notify"  # not an abstract address: those end where the namespace ends
        notify.unlink(missing_ok=True)
        with self.log_file.open("ab") as log, socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as ready:
            ready.bind(str(notify))
            environment = {"NOTIFY_SOCKET": str(notify), "PYTHONUNBUFFERED": "1"}
            self.process = self.host.popen(argv, stdout=log, stderr=log, env=environment)
            self._wait_ready(self.process, ready)

    def terminate(self) -> int | None:
        """Stop the daemon as systemd does; domains go on. Returns its exit code, None if it did not run."""
        process, self.process = self.process, None
        return stop_child(process, grace_s=STOP_S) if process else None

    def kill(self) -> None:
        """Kill the daemon, as a crash would. Domains and carriers are not touched."""
        process, self.process = self.process, None
        if process:
            process.kill()
            process.wait()

    def relocctl(self, *words: str | Path, check: bool = True, timeout_s: float = COMMAND_S) -> Reply:
        """Run ``relocctl WORDS --json`` on this host; the reply's ``result`` is its last JSON line.

        Raises TestbedError if it fails, unless ``check`` is off.
        """
        return self._client("relocctl", [*words, "--json"], check, timeout_s)

    def xm(self, *words: str | Path, check: bool = True, timeout_s: float = COMMAND_S) -> Reply:
        """Run ``xm WORDS`` on this host."""
        return self._client("xm", [*words], check, timeout_s)

    def processes(self) -> dict[int, str]:
        """Everything that lives on this host but the daemon and what a test started there: pid to command line.

        A process that the daemon is about to start is the daemon still.
        """
        known = {child.pid for child in self.host.children}
        found = {pid: _command_line(pid) for pid in self.host.pids() if pid not in known}
        daemon = _command_line(self.process.pid) if self.process else ""
        return {pid: line for pid, line in found.items() if line not in ("", daemon)}

    def ask(self, verb: str, **fields: object) -> dict[str, Any]:
        """The daemon's own answer to a request (docs/control.md); much cheaper than a run of relocctl."""
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock:
            sock.settimeout(COMMAND_S)
            sock.connect(str(self.control_socket))
            sock.sendall(json.dumps({"verb": verb, **fields}).encode() + b"\n")
            with sock.makefile() as lines:
                answer: dict[str, Any] = json.loads(list(lines)[-1])
        return answer

    def reload(self, settings: Mapping[str, str | int]) -> None:
        """Change the configuration while the daemon runs; returns when it is in use."""
        assert self.process is not None
        seen = self.log_file.read_text().count("reloaded ")
        self.write_config(settings)
        self.process.send_signal(signal.SIGHUP)
        deadline = time.monotonic() + READY_S
        while self.log_file.read_text().count("reloaded ") <= seen:
            if time.monotonic() > deadline:
                raise TestbedError(f"relocd on {self.host.name} did not reload its configuration")
            time.sleep(0.02)

    def connections(self, *, of_daemon: bool = False) -> list[str]:
        """TCP connections to or from a relocation port that a program still holds.

        What only the kernel still sees to its end does not count: after a cut that takes as long as its repetitions
        do. Those of this very process, a wire between the hosts, do not count. ``of_daemon``: only established ones
        that relocd itself holds, not its carriers.
        """
        ports = f"( sport = :{PORT} or dport = :{PORT} )"
        lines = self.host.run(["ss", "-Htanp", ports]).splitlines()
        if of_daemon:
            pid = self.process.pid if self.process else 0
            return [line for line in lines if line.startswith("ESTAB") and f"pid={pid}," in line]
        held = [line for line in lines if not line.startswith("LISTEN") and "pid=" in line]
        return [line for line in held if f"pid={os.getpid()}," not in line]

    def leftovers(self, keep: Iterable[str] = ()) -> list[str]:
        """What is still here and should not be, one text each: processes, taps and bridge ports, files in the
        run directory (sockets), unfinished boot files, connections between relocation ports.

        ``keep`` names the domains (UUIDs) that should be here; what mentions one of them, or is used by it, stays. So
        does the carrier that waits for the next relocation.
        """
        kept = list(keep)
        lines = self.processes()
        for pid in self.waiting_carriers(lines)[:1]:
            del lines[pid]
        domains = " ".join(line for line in lines.values() if any(uuid in line for uuid in kept))
        found = [f"process {pid}: {line}" for pid, line in lines.items() if line not in domains]
        devices = {*self.host.links("tun"), *self.host.ports()} - {UPLINK}
        found += [f"device {name}" for name in sorted(devices) if name not in domains]
        found += [f"file {path}" for path in self._domain_files() if not any(uuid in path for uuid in kept)]
        found += [f"boot file {path.name}" for path in self.boot_files() if path.name.startswith(UNFINISHED)]
        found += [f"connection {line}" for line in self.connections()]
        return found

    def waiting_carriers(self, lines: Mapping[int, str]) -> list[int]:
        """Of these processes the carriers that have nothing to do yet, of a daemon that runs: one thread each."""
        if self.process is None:
            return []
        carriers = [pid for pid, line in lines.items() if "relocd.carrier" in line]
        return [pid for pid in carriers if _threads(pid) == 1]

    def boot_files(self) -> list[Path]:
        """What is in the boot store."""
        return sorted(self.state_dir.glob("boot/*")) + sorted(self.state_dir.glob("boot/.*"))

    def wait_clean(self, keep: Iterable[str] = (), timeout_s: float = 15) -> None:
        """Return once nothing is left over; what is being removed gets the time. Raises TestbedError."""
        deadline = time.monotonic() + timeout_s
        while found := self.leftovers(keep):
            if time.monotonic() > deadline:
                raise TestbedError(f"left on {self.host.name}: " + "; ".join(found))
            time.sleep(0.05)

    def kill_domains(self) -> None:
        """End every process of this daemon's that outlived it, domains above all."""
        kill_all(pid for pid, line in self.processes().items() if str(self.directory) in line)

    def _domain_files(self) -> list[str]:
        paths = sorted(path for path in self.run_dir.rglob("*") if not path.is_dir())
        return [
            name for path in paths if (name := str(path.relative_to(self.run_dir))) not in KEPT_IN_RUN_DIR
        ]

    def _client(self, program: str, words: Sequence[str | Path], check: bool, timeout_s: float) -> Reply:
        argv = self.host.argv([PROGRAMS / program, *words])
        environment = {**os.environ, "RELOCD_SOCKET": str(self.control_socket)}
        done = subprocess.run(
            argv, env=environment, capture_output=True, text=True, timeout=timeout_s, check=False
        )
        reply = Reply(done.returncode, done.stdout, done.stderr)
        if check and reply.exit_code:
            said = (reply.stderr or reply.stdout).strip()
            raise TestbedError(f"{program} {' '.join(map(str, words))}: exit code {reply.exit_code}: {said}")
        return reply

    def _wait_ready(self, process: subprocess.Popen[bytes], ready: socket.socket) -> None:
        end = os.pidfd_open(process.pid)
        try:
            deadline = time.monotonic() + READY_S
            while left := max(0.0, deadline - time.monotonic()):
                readable, _, _ = select.select([ready.fileno(), end], [], [], left)
                if ready.fileno() in readable and b"READY=1" in ready.recv(4096).splitlines():
                    return
                if end in readable:
                    break
        finally:
            os.close(end)
        raise TestbedError(f"relocd on {self.host.name} did not start: {self.log_file.read_text()[-2000:]}")


def _privileges() -> list[str]:
    """What gives a program the capabilities that the systemd unit allows, and no more, however it was started."""
    lines = UNIT.read_text().splitlines()
    sets = [line.partition("=")[2].split() for line in lines if line.startswith("CapabilityBoundingSet=")]
    names = [f"+{name.removeprefix('CAP_').lower()}" for words in sets for name in words]
    return ["setpriv", f"--bounding-set=-all,{','.join(names)}", "--inh-caps=-all", "--no-new-privs"]


def _command_line(pid: int) -> str:
    """A process's arguments, empty if it is gone (or a zombie)."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
    except OSError:
        return ""


def _threads(pid: int) -> int:
    """How many threads a process has, 0 if it is gone."""
    try:
        return len(list(Path(f"/proc/{pid}/task").iterdir()))
    except OSError:
        return 0


def _quoted(value: str | int) -> str:
    """A value of an S-expression: numbers bare, texts in quotes."""
    if isinstance(value, int):
        return str(value)
    escaped = value.replace("\\", "\\\\").replace("'", "\\'")
    return f"'{escaped}'"
