"""A QEMU process: started so that it outlives the daemon, found again by a later one, its end noticed at
once.

A process is known by its pid, its start time in the kernel's clock ticks (proc_pid_stat(5), field 22) and the
UUID on its command line; a pid alone may have been given to another program since.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import itertools
import os
import shutil
import signal
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from uuid import UUID

import psutil
from attrs import frozen

from relocd.drivers.aio import OneShot
from relocd.errors import DriverError

INHERITED_FD = 3
"""The number under which the first descriptor given to :func:`spawn` is open in the process; then come the others."""
DYING_S = 5.0
"""A QEMU that has closed its monitor is about to end; it does not take longer than this."""

_ENDING_NICENESS = 10
_EXEC_POLL_S = 0.001
_TICKS_PER_S = os.sysconf("SC_CLK_TCK")
_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")
_MIB = 1 << 20


@frozen
class Identity:
    """What tells a process from all others of this boot. ``start_ticks`` is the kernel's count since boot."""

    pid: int
    start_ticks: int


def spawn(argv: list[str], *, log: Path, descriptors: Sequence[int]) -> Identity:
    """Start a program in its own session: standard error goes to ``log``, ``descriptors`` become
    INHERITED_FD and the numbers after it.

    Blocks for the moment a fork takes. Raises DriverError if the program cannot be started.
    """
    with _above(INHERITED_FD + len(descriptors), descriptors) as held:
        pid = _start(argv, log, held)
    while not _command_line(pid) and _start_ticks(pid) is not None:
        time.sleep(_EXEC_POLL_S)  # for a moment after the exec the kernel shows no arguments yet
    return Identity(pid, _start_ticks(pid) or 0)


@contextlib.contextmanager
def _above(lowest: int, descriptors: Sequence[int]) -> Iterator[list[int]]:
    """Copies whose numbers are out of the way of those that they get in the child."""
    with contextlib.ExitStack() as stack:
        held = []
        for descriptor in descriptors:
            held.append(fcntl.fcntl(descriptor, fcntl.F_DUPFD_CLOEXEC, lowest))
            stack.callback(os.close, held[-1])
        yield held


def _start(argv: list[str], log: Path, descriptors: Sequence[int]) -> int:
    writing = os.O_WRONLY | os.O_CREAT | os.O_APPEND
    actions = (
        *((os.POSIX_SPAWN_CLOSE, number) for number in _inheritable()),
        (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
        (os.POSIX_SPAWN_OPEN, 1, os.devnull, os.O_WRONLY, 0),
        (os.POSIX_SPAWN_OPEN, 2, str(log), writing, 0o600),
        *((os.POSIX_SPAWN_DUP2, held, number) for number, held in enumerate(descriptors, INHERITED_FD)),
    )
    environment = {"PATH": os.environ.get("PATH", os.defpath), "LC_ALL": "C"}
    try:
        # Python ignores SIGPIPE, which a child would inherit.
        return os.posix_spawnp(
            argv[0],
            argv,
            environment,
            file_actions=actions,
            setsid=True,
            setsigmask=(),
            setsigdef=(signal.SIGPIPE,),
        )
    except OSError as error:
        raise DriverError(
            f"cannot start {argv[0]}: {error.strerror}", hint="check qemu-binary in relocd's configuration"
        ) from error


def _inheritable() -> Iterator[int]:
    """Descriptors that a child would get: not those made here, but those that we were started with ourselves."""
    for path in Path("/proc/self/fd").iterdir():
        number = int(path.name)
        with contextlib.suppress(OSError):  # the listing itself needs one, which is closed by now
            if number > 2 and os.get_inheritable(number):
                yield number


#: Exists exactly where systemd is the system's manager (sd_booted(3)).
SYSTEMD_BOOTED = Path("/run/systemd/system")


def in_scope(argv: Sequence[str], *, unit: str, environment: Mapping[str, str]) -> list[str]:
    """``argv`` so that a stop of relocd's service spares the process.

    Where systemd runs us, that takes a scope of its own, named ``unit``; elsewhere nothing.
    """
    under_systemd = "NOTIFY_SOCKET" in environment or "INVOCATION_ID" in environment
    if not under_systemd or not SYSTEMD_BOOTED.is_dir() or shutil.which("systemd-run") is None:
        return list(argv)
    scope = ["systemd-run", "--scope", "--quiet", "--collect", f"--unit={unit}", "--slice=machine.slice"]
    return [*scope, "--", *argv]


def alive(identity: Identity, domain: UUID) -> bool:
    """The process is still the one that was started for ``domain``. A zombie is not alive."""
    return _start_ticks(identity.pid) == identity.start_ticks and _serves(_command_line(identity.pid), domain)


def search(domain: UUID, console: Path) -> Identity | None:
    """Find the process of ``domain`` by its command line, for a start that a crash left unrecorded.

    ``console`` is the socket's path, which no other daemon's QEMU has. Blocks: it looks at every process.
    """
    for pid in psutil.pids():
        command = _command_line(pid)
        ticks = _start_ticks(pid)
        if ticks is not None and _serves(command, domain) and any(str(console) in word for word in command):
            return Identity(pid, ticks)
    return None


class Process:
    """A process that is alive when this is made; use it in the reactor thread."""

    def __init__(self, identity: Identity) -> None:
        self.identity = identity
        self.ended = OneShot()
        self._status = ""
        try:
            self._pidfd = os.pidfd_open(identity.pid)
        except OSError as error:
            raise DriverError(f"the process {identity.pid} is gone") from error
        asyncio.get_running_loop().add_reader(self._pidfd, self._end)

    @property
    def status(self) -> str:
        """How it ended, in words; known only for our own children."""
        return self._status

    def terminate(self) -> None:
        """Ask the process to end (SIGTERM)."""
        self._signal(signal.SIGTERM)

    def kill(self) -> None:
        """End the process at once (SIGKILL)."""
        self._signal(signal.SIGKILL)

    async def end(self, *, grace_s: float) -> None:
        """Ask the process to end, end it after ``grace_s``, and return when it is gone."""
        self._step_back()
        self.terminate()
        if not await self.ended.wait(grace_s):
            self.kill()
            await self.ended.wait()

    def let_go(self) -> None:
        """Stop watching; the process goes on."""
        self.ended.forget()
        self._unwatch()

    def _unwatch(self) -> None:
        if self._pidfd >= 0:
            asyncio.get_running_loop().remove_reader(self._pidfd)
            os.close(self._pidfd)
            self._pidfd = -1

    def cpu_time_s(self) -> float:
        """Processor time used so far by all threads, in seconds; 0 once it is gone."""
        fields = _stat(self.identity.pid)
        return (int(fields[11]) + int(fields[12])) / _TICKS_PER_S if fields else 0.0

    def resident_mib(self) -> int:
        """Memory of the host that it holds, in MiB; 0 once it is gone."""
        fields = _stat(self.identity.pid)
        return int(fields[21]) * _PAGE_BYTES // _MIB if fields else 0

    def _step_back(self) -> None:
        """Let others run first: to give the memory of a large guest back takes tenths of a second of a processor."""
        for thread in _threads(self.identity.pid) if self._pidfd >= 0 else ():
            with contextlib.suppress(OSError):  # it may have ended
                os.setpriority(os.PRIO_PROCESS, thread, _ENDING_NICENESS)

    def _signal(self, number: signal.Signals) -> None:
        if self._pidfd >= 0:
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(self._pidfd, number)

    def _end(self) -> None:
        self._status = _reap(self._pidfd)
        self._unwatch()
        self.ended.fire()


def _reap(pidfd: int) -> str:
    try:
        result = os.waitid(os.P_PIDFD, pidfd, os.WEXITED | os.WNOHANG)
    except ChildProcessError:  # started by a former daemon: init reaps it
        return "ended"
    if result is None:
        return "ended"
    if result.si_code == os.CLD_EXITED:
        return f"exited with status {result.si_status}"
    return f"was killed by signal {result.si_status}"


def _serves(command: Sequence[str], domain: UUID) -> bool:
    return any(key == "-uuid" and value == str(domain) for key, value in _pairs(command))


def _pairs(words: Sequence[str]) -> Iterator[tuple[str, str]]:
    return itertools.pairwise(words)


def _threads(pid: int) -> list[int]:
    try:
        return [int(path.name) for path in Path(f"/proc/{pid}/task").iterdir()]
    except OSError:
        return []


def _command_line(pid: int) -> list[str]:
    try:
        text = Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace")
    except OSError:
        return []
    return text.split("\0") if text else []


def _start_ticks(pid: int) -> int | None:
    fields = _stat(pid)
    return int(fields[19]) if fields and fields[0] != "Z" else None


def _stat(pid: int) -> list[str]:
    """The fields of /proc/PID/stat from the third (state) on; the second may contain anything."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text(errors="replace")
    except OSError:
        return []
    return text.rpartition(")")[2].split()
