"""The QMP connection, to a real QEMU without a machine and to servers that misbehave."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from twisted.internet.defer import Deferred

from relocd.drivers.qemu.process import INHERITED_FD, Process, spawn
from relocd.drivers.qemu.qmp import CommandRefused, Monitor, MonitorLost
from relocd.drivers.qemu.sockets import listening
from relocd.errors import DriverError
from tests.reactor import call, run

VERSION = b'{"qemu": {"micro": 0, "minor": 2, "major": 7}, "package": ""}'
GREETING = b'{"QMP": {"version": ' + VERSION + b', "capabilities": []}}\r\n'


class Qemu:
    """A QEMU that runs nothing, and a monitor on it."""

    def __init__(self, directory: Path) -> None:
        path = directory / "qmp.sock"
        argv = [
            *("qemu-system-x86_64", "-nodefaults", "-display", "none", "-machine", "none", "-S"),
            *(
                "-chardev",
                f"socket,id=m,fd={INHERITED_FD},server=on,wait=off",
                "-mon",
                "chardev=m,mode=control",
            ),
        ]
        with listening(path) as listener:
            self.process = call(Process, spawn(argv, log=directory / "log", descriptors=[listener.fileno()]))
        try:
            self.monitor = run(Monitor.connect(path, name="web"))
        except MonitorLost:
            call(self.process.kill)
            raise


@pytest.fixture
def qemu(tmp_path: Path) -> Iterator[Qemu]:
    qemu = Qemu(tmp_path)
    yield qemu
    run(qemu.monitor.close())
    call(qemu.process.kill)
    run(qemu.process.ended.wait())


@pytest.mark.qemu
def test_commands_and_refusals(qemu: Qemu) -> None:
    assert run(qemu.monitor.execute("query-status"))["status"] == "prelaunch"
    with pytest.raises(CommandRefused, match="QEMU refused migrate_continue") as caught:
        run(qemu.monitor.execute("migrate_continue"))
    assert caught.value.error_class == "CommandNotFound"
    assert run(qemu.monitor.execute("query-status", {}))["running"] is False


@pytest.mark.qemu
def test_events_come_before_the_answer_of_the_command_that_caused_them(qemu: Qemu) -> None:
    heard: list[tuple[str, Any]] = []

    def broken(_event: str, _data: Any) -> None:
        raise ValueError("a listener's bug")

    call(qemu.monitor.listen, broken)
    call(qemu.monitor.listen, lambda event, data: heard.append((event, data)))
    run(qemu.monitor.execute("cont"))
    assert heard == [("RESUME", {})]
    run(qemu.monitor.execute("stop"))
    assert [event for event, _ in heard] == ["RESUME", "STOP"]


@pytest.mark.qemu
def test_a_descriptor_is_handed_over(qemu: Qemu) -> None:
    ours, theirs = socket.socketpair()
    run(qemu.monitor.send_descriptor(theirs.fileno(), "stream"))
    theirs.close()
    run(qemu.monitor.execute("closefd", {"fdname": "stream"}))
    assert ours.recv(1) == b""
    ours.close()


@pytest.mark.qemu
def test_when_qemu_dies_everyone_who_waits_learns_of_it(qemu: Qemu) -> None:
    lost: list[str] = []
    call(qemu.monitor.gone.then, lambda: lost.append("lost"))
    call(qemu.process.kill)
    run(qemu.process.ended.wait())
    with pytest.raises(MonitorLost, match="QEMU of web is gone"):
        run(qemu.monitor.execute("query-status"))
    run(qemu.monitor.close())
    assert lost == ["lost"]
    call(qemu.monitor.gone.then, lambda: lost.append("at once"))
    assert lost == ["lost", "at once"]
    with pytest.raises(MonitorLost):
        run(qemu.monitor.send_descriptor(0, "stream"))


@pytest.mark.qemu
def test_a_closed_connection_can_be_made_again(qemu: Qemu, tmp_path: Path) -> None:
    for _ in range(2):
        run(qemu.monitor.close())
    assert call(lambda: qemu.monitor.gone.fired)
    qemu.monitor = run(Monitor.connect(tmp_path / "qmp.sock", name="web"))
    assert run(qemu.monitor.execute("query-status"))["status"] == "prelaunch"


def test_nobody_listens(tmp_path: Path) -> None:
    with pytest.raises(MonitorLost):
        run(Monitor.connect(tmp_path / "none.sock", name="web"))
    with listening(tmp_path / "left.sock"):
        pass
    with pytest.raises(MonitorLost):
        run(Monitor.connect(tmp_path / "left.sock", name="web"))


def test_a_server_that_says_nothing(tmp_path: Path) -> None:
    path = tmp_path / "silent.sock"
    with listening(path), pytest.raises(MonitorLost):
        run(Monitor.connect(path, name="web", timeout_s=0.05))


def test_a_server_that_speaks_something_else(tmp_path: Path) -> None:
    path = tmp_path / "other.sock"
    with listening(path) as listener:
        server = _serve(listener, [b"SSH-2.0-OpenSSH_9.2\r\n"])
        with pytest.raises(MonitorLost):
            run(Monitor.connect(path, name="web", timeout_s=5))
        server.join()


def test_an_event_before_the_first_answer(tmp_path: Path) -> None:
    """As a guest causes that powers off while a new daemon connects."""
    path = tmp_path / "hasty.sock"
    event = b'{"event": "STOP", "timestamp": {"seconds": 0, "microseconds": 0}}\r\n'
    answer = b'{"return": {}}\r\n'
    with listening(path) as listener:
        server = _serve(listener, [GREETING, event + answer])
        again: list[threading.Thread] = []

        def serve_again() -> None:
            server.join()
            again.append(_serve(listener, [GREETING, answer], until_closed=True))

        threading.Thread(target=serve_again).start()
        monitor = run(Monitor.connect(path, name="web"))
        run(monitor.close())
        again[0].join()


def test_an_answer_that_does_not_come(tmp_path: Path) -> None:
    path = tmp_path / "slow.sock"
    with listening(path) as listener:
        server = _serve(listener, [GREETING, b'{"return": {}}\r\n'], until_closed=True)
        monitor = run(Monitor.connect(path, name="web"))
        with pytest.raises(DriverError, match=r"did not answer stop within 0.05 s"):
            run(monitor.execute("stop", timeout_s=0.05))
        pending = call(lambda: Deferred.fromCoroutine(monitor.execute("stop")))
        run(monitor.close())
        with pytest.raises(MonitorLost):
            run(_wait(pending))
        server.join()


async def _wait(deferred: Deferred[Any]) -> Any:
    return await deferred


def _serve(listener: socket.socket, answers: list[bytes], *, until_closed: bool = False) -> threading.Thread:
    """Say the first answer at once and each other one after something was heard."""

    listener.setblocking(True)

    def serve() -> None:
        connection, _ = listener.accept()
        with connection:
            for number, answer in enumerate(answers):
                if number:
                    connection.recv(4096)
                connection.sendall(answer)
            while until_closed and connection.recv(4096):
                pass

    thread = threading.Thread(target=serve)
    thread.start()
    return thread
