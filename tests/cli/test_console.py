"""The console on a real terminal and with pipes."""

from __future__ import annotations

import os
import signal
import subprocess
import termios
from collections.abc import Iterator
from pathlib import Path

import pexpect
import pytest

from tests.cli.conftest import BIN, Run
from tests.cli.console_guest import WAIT_S, ConsoleGuest
from tests.cli.control_server import ControlServer, domain

HINT = r"Connected to the console of 'web'\. Ctrl-\] leaves it\.\r\n"


@pytest.fixture
def guest(tmp_path: Path, server: ControlServer) -> Iterator[ConsoleGuest]:
    server.domains = [domain("web", 1)]
    path = tmp_path / "console.sock"
    server.answer("console", {"event": "result", "path": str(path), "log": ""})
    server.answer("create", {"event": "result", "domain": domain("web", 1), "warnings": []})
    with ConsoleGuest(path) as running:
        yield running


def terminal(command: str, *arguments: str) -> pexpect.spawn[bytes]:
    """Run a command on a terminal of its own."""
    return pexpect.spawn(str(BIN / command), list(arguments), timeout=WAIT_S, env=dict(os.environ))


def modes(child: pexpect.spawn[bytes]) -> list[object]:
    """The modes of the child's terminal."""
    return list(termios.tcgetattr(child.child_fd))


def is_raw(child: pexpect.spawn[bytes]) -> bool:
    """Whether every key reaches the guest: no line editing, no echo, no signals."""
    local = termios.tcgetattr(child.child_fd)[3]
    return not local & (termios.ICANON | termios.ECHO | termios.ISIG)


@pytest.mark.parametrize("command", ["relocctl", "xm"])
def test_keys_go_to_the_guest_and_ctrl_bracket_leaves(guest: ConsoleGuest, command: str) -> None:
    child = terminal(command, "console", "web")
    before = modes(child)
    child.expect(HINT)
    guest.say(b"login: ")
    child.expect("login: ")
    assert is_raw(child)
    child.send("root\r\x03\x04")  # also what would interrupt or end a program here
    assert guest.hear(7) == b"root\r\x03\x04"
    child.send("bye\x1d")
    assert guest.hear(3) == b"bye"
    child.expect(r"Left the console of 'web'; the domain goes on\.\r\n")
    assert modes(child) == before
    child.expect(pexpect.EOF)
    assert child.wait() == 0


def test_a_guest_that_goes_is_told(guest: ConsoleGuest) -> None:
    child = terminal("relocctl", "console", "web")
    before = modes(child)
    child.expect(HINT)
    guest.say(b"reboot: Power down\r\n")
    guest.hang_up()
    child.expect("reboot: Power down\r\n")
    child.expect(r"The console of 'web' was closed: the domain has stopped or moved\.\r\n")
    assert modes(child) == before
    child.expect(pexpect.EOF)
    assert child.wait() == 0


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_signal_restores_the_terminal(guest: ConsoleGuest, number: signal.Signals) -> None:
    child = terminal("relocctl", "console", "web")
    before = modes(child)
    guest.say(b"#")
    child.expect("#")
    assert is_raw(child)
    child.kill(number)
    child.expect(pexpect.EOF)
    assert modes(child) == before
    assert child.wait() == 128 + number


def test_xm_can_be_quiet_about_it(guest: ConsoleGuest) -> None:
    child = terminal("xm", "console", "-q", "web")
    guest.say(b"#")
    child.expect("#")
    assert child.before == b""
    child.send("\x1d")
    child.expect(pexpect.EOF)
    assert child.before == b""


def test_create_can_attach(guest: ConsoleGuest, tmp_path: Path) -> None:
    config = tmp_path / "web.cfg"
    config.write_text("name = 'web'\n")
    for command, option in (("relocctl", "--console"), ("xm", "-c")):
        child = terminal(command, "create", option, str(config))
        child.expect(r"Started domain web \(id=1\)\r\n")
        guest.say(b"Linux version")
        child.expect("Linux version")
        child.send("\x1d")
        child.expect(pexpect.EOF)
        guest.hang_up()


def test_pipes_carry_every_byte_both_ways(guest: ConsoleGuest) -> None:
    with subprocess.Popen(
        [BIN / "relocctl", "console", "web"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as child:
        assert child.stdin is not None
        assert child.stdout is not None
        child.stdin.write(b"a\x1db\n")
        child.stdin.close()
        assert guest.hear(4) == b"a\x1db\n"
        guest.say(b"answer\n")
        assert child.stdout.readline() == b"answer\n"
        assert child.wait(WAIT_S) == 0  # the guest said no more
        assert child.stderr is not None
        assert child.stderr.read() == b""


def test_a_lot_of_input_reaches_a_guest_that_reads_late(guest: ConsoleGuest) -> None:
    text = bytes(range(256)) * 4096
    with subprocess.Popen(
        [BIN / "relocctl", "console", "web"], stdin=subprocess.PIPE, stdout=subprocess.DEVNULL
    ) as child:
        assert child.stdin is not None
        guest.say(b"#")
        child.stdin.write(text[: 128 * 1024])
        child.stdin.flush()
        heard = guest.hear(64 * 1024)
        child.stdin.write(text[128 * 1024 : 160 * 1024])
        child.stdin.close()
        heard += guest.hear(96 * 1024)
        assert heard == text[: 160 * 1024]
        assert child.wait(WAIT_S) == 0


def test_a_console_that_is_not_there(run: Run, server: ControlServer, tmp_path: Path) -> None:
    server.answer("console", {"event": "result", "path": str(tmp_path / "none.sock"), "log": ""})
    done = run("relocctl", "console", "web")
    assert done.returncode == 9
    assert done.stderr.startswith(
        f"Error: Cannot reach the console of 'web' at {tmp_path}/none.sock: No such file"
    )
