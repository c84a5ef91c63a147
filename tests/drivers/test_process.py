"""Processes: started apart from us, told from others, noticed when they end. With /bin/sh in the place of QEMU."""

from __future__ import annotations

import os
import signal
import socket
from collections.abc import Iterator
from pathlib import Path
from uuid import UUID, uuid4

import pytest
from attrs import evolve

from relocd.drivers.qemu import process as module
from relocd.drivers.qemu.process import INHERITED_FD, Identity, Process, alive, in_scope, search, spawn
from relocd.errors import DriverError
from tests.reactor import call, run


class Shell:
    """A shell that runs a script, named on its command line as QEMU names its domain."""

    def __init__(self, directory: Path, script: str) -> None:
        self.uuid = uuid4()
        self.console = directory / "console.sock"
        self.log = directory / "log"
        ours, theirs = socket.socketpair()
        self.stream = ours
        argv = ["/bin/sh", "-c", script, "-uuid", str(self.uuid), f"path={self.console}"]
        self.identity = spawn(argv, log=self.log, descriptors=[theirs.fileno()])
        theirs.close()
        self.process = call(Process, self.identity)


@pytest.fixture
def shell(tmp_path: Path) -> Iterator[Shell]:
    """One that waits until its stream is closed."""
    shell = Shell(tmp_path, f"exec <&{INHERITED_FD}; read line")
    yield shell
    call(shell.process.kill)
    run(shell.process.ended.wait())
    shell.stream.close()


def test_it_is_told_from_all_others(shell: Shell) -> None:
    identity = shell.identity
    assert alive(identity, shell.uuid)
    assert not alive(identity, uuid4())
    assert not alive(evolve(identity, start_ticks=identity.start_ticks + 1), shell.uuid)
    assert not alive(Identity(os.getpid(), identity.start_ticks), shell.uuid)


def test_it_is_found_by_its_command_line(shell: Shell) -> None:
    assert search(shell.uuid, shell.console) == shell.identity
    assert search(UUID(int=1), shell.console) is None
    assert search(shell.uuid, Path("/run/another/console.sock")) is None


def test_it_has_its_own_session_and_only_the_descriptors_it_was_given(shell: Shell) -> None:
    pid = shell.identity.pid
    assert os.getsid(pid) == pid
    descriptors = {int(path.name) for path in Path(f"/proc/{pid}/fd").iterdir()}
    assert descriptors == {0, 1, 2, INHERITED_FD}


def test_it_gets_descriptors_in_the_order_given_whatever_their_numbers_are_here(tmp_path: Path) -> None:
    pipes = [os.pipe() for _ in range(2)]
    ends = sorted((writing for _, writing in pipes), reverse=True)
    script = f"echo first >&{INHERITED_FD}; echo second >&{INHERITED_FD + 1}"
    identity = spawn(["/bin/sh", "-c", script], log=tmp_path / "log", descriptors=ends)
    os.waitid(os.P_PID, identity.pid, os.WEXITED)
    said = {writing: os.read(reading, 100) for reading, writing in pipes}
    for pipe in pipes:
        for end in pipe:
            os.close(end)
    assert said == {ends[0]: b"first\n", ends[1]: b"second\n"}


def test_descriptors_that_we_were_started_with_stay_here(tmp_path: Path) -> None:
    reading, writing = os.pipe()
    os.set_inheritable(writing, True)
    shell = Shell(tmp_path, f"exec <&{INHERITED_FD}; read line")
    os.close(writing)
    assert os.read(reading, 1) == b""
    os.close(reading)
    shell.stream.close()
    assert run(shell.process.ended.wait(10))


def test_its_end_is_noticed_with_its_reason(shell: Shell) -> None:
    call(shell.process.kill)
    assert run(shell.process.ended.wait(10))
    assert shell.process.status == "was killed by signal 9"
    assert not alive(shell.identity, shell.uuid)
    with pytest.raises(DriverError, match="gone"):
        call(Process, shell.identity)


def test_it_ends_when_asked(shell: Shell) -> None:
    run(shell.process.end(grace_s=10))
    assert shell.process.status == f"was killed by signal {signal.SIGTERM.value}"
    run(shell.process.end(grace_s=10))


def test_one_that_does_not_listen_is_ended(tmp_path: Path) -> None:
    shell = Shell(tmp_path, f"trap '' TERM; echo ready >&{INHERITED_FD}; cat <&{INHERITED_FD}; exec sleep 60")
    assert shell.stream.recv(6) == b"ready\n"
    run(shell.process.end(grace_s=0.05))
    assert shell.process.status == "was killed by signal 9"
    shell.stream.close()


def test_one_that_ends_lets_others_run_first(tmp_path: Path) -> None:
    shell = Shell(
        tmp_path,
        f"trap 'ps -o ni= -p $$ >&{INHERITED_FD}; exit' TERM; echo ready >&{INHERITED_FD}; while :; do :; done",
    )
    assert shell.stream.recv(6) == b"ready\n"
    run(shell.process.end(grace_s=20))
    assert shell.stream.recv(10).strip() == b"10"


def test_its_exit_status_and_its_words_are_kept(tmp_path: Path) -> None:
    shell = Shell(tmp_path, "echo no such disk >&2; exit 3")
    assert run(shell.process.ended.wait(10))
    assert shell.process.status == "exited with status 3"
    assert shell.log.read_text() == "no such disk\n"
    shell.stream.close()


def test_who_let_go_hears_nothing(shell: Shell) -> None:
    heard: list[str] = []
    call(shell.process.ended.then, lambda: heard.append("ended"))
    call(shell.process.let_go)
    other = call(Process, shell.identity)
    call(other.kill)
    run(other.ended.wait())
    assert heard == []
    shell.process.ended.fire()


def test_what_it_uses_is_counted(shell: Shell) -> None:
    assert call(shell.process.cpu_time_s) >= 0.0
    own = call(Process, Identity(os.getpid(), 0))
    assert call(own.resident_mib) > 10
    assert call(own.cpu_time_s) > 0.0
    call(own.let_go)


def test_a_program_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(DriverError, match="cannot start /none"):
        spawn(["/none"], log=tmp_path / "log", descriptors=[0])


def test_a_scope_only_where_systemd_runs_us(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    argv, unit = ["qemu", "-S"], "relocd-domain-x-1"
    assert in_scope(argv, unit=unit, environment={}) == argv
    monkeypatch.setattr(module, "SYSTEMD_BOOTED", tmp_path / "none")
    assert in_scope(argv, unit=unit, environment={"INVOCATION_ID": "1"}) == argv
    monkeypatch.setattr(module, "SYSTEMD_BOOTED", tmp_path)
    (tmp_path / "systemd-run").touch(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    for variable in ("NOTIFY_SOCKET", "INVOCATION_ID"):
        assert in_scope(argv, unit=unit, environment={variable: "1"}) == [
            *("systemd-run", "--scope", "--quiet", "--collect"),
            *("--unit=relocd-domain-x-1", "--slice=machine.slice", "--", "qemu", "-S"),
        ]
    monkeypatch.setenv("PATH", "/none")
    assert in_scope(argv, unit=unit, environment={"INVOCATION_ID": "1"}) == argv
