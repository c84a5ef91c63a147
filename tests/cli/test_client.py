"""The control client: every way an answer can come, or not come."""

from __future__ import annotations

import contextlib
import os
import stat
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from relocd.cli.client import (
    DEFAULT_SOCKET,
    MAX_LINE_BYTES,
    Client,
    DaemonError,
    DaemonUnavailableError,
    NoAnswerError,
    socket_path,
)
from relocd.errors import ProtocolError, RelocdError, UsageError
from tests.cli.control_server import ControlServer, progress


@pytest.fixture
def client(server: ControlServer) -> Client:
    return Client(str(server.path))


@pytest.fixture
def as_nobody(server: ControlServer) -> Iterator[None]:
    """Lay root's privileges down, if there are any, once the server is there."""
    former = os.geteuid()
    if former == 0:
        os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(former)


def test_the_socket_is_the_option_else_the_variable_else_the_default(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RELOCD_SOCKET", "/from/variable")
    assert socket_path("/from/option") == "/from/option"
    assert socket_path() == "/from/variable"
    monkeypatch.delenv("RELOCD_SOCKET")
    assert socket_path() == DEFAULT_SOCKET


def test_a_request_carries_its_fields_and_leaves_out_those_that_are_none(
    server: ControlServer, client: Client
) -> None:
    server.answer("check", {"event": "result", "passed": True})
    assert client.call("check", domain="web", host="hostb", port=None) == {"event": "result", "passed": True}
    assert server.requests == [{"verb": "check", "domain": "web", "host": "hostb"}]


def test_progress_comes_in_order_before_the_result(server: ControlServer, client: Client) -> None:
    steps = [progress("memory", number, number * 10.0) for number in (1, 2, 3)]
    server.answer("migrate", *steps, {"event": "result", "outcome": "completed"})
    seen: list[object] = []
    result = client.call("migrate", on_progress=seen.append)
    assert seen == steps
    assert result["outcome"] == "completed"


def test_events_that_are_not_known_are_skipped(server: ControlServer, client: Client) -> None:
    server.answer("info", {"event": "weather"}, {"event": "result", "version": "1"})
    assert client.call("info")["version"] == "1"


def test_an_error_keeps_its_code_hint_and_exit_code(server: ControlServer, client: Client) -> None:
    server.answer(
        "pause",
        {
            "event": "error",
            "code": "bad-state",
            "message": "It is paused.",
            "hint": "Unpause it.",
            "exit_code": 2,
        },
    )
    with pytest.raises(DaemonError, match=r"^It is paused\.$") as caught:
        client.call("pause", domain="web")
    assert (caught.value.reply_code, caught.value.hint, caught.value.status) == (
        "bad-state",
        "Unpause it.",
        2,
    )


@pytest.mark.parametrize("exit_code", [0, -1, 256, "7", None])
def test_an_error_never_becomes_success(server: ControlServer, client: Client, exit_code: object) -> None:
    server.answer("pause", {"event": "error", "message": "no", "exit_code": exit_code})
    with pytest.raises(DaemonError) as caught:
        client.call("pause")
    assert caught.value.status == 1


def test_no_socket_says_how_to_start_relocd(tmp_path: Path) -> None:
    with pytest.raises(
        DaemonUnavailableError,
        match=r"^Unable to connect to relocd: No such file or directory\. Is relocd running\?$",
    ) as caught:
        Client(str(tmp_path / "none.sock")).call("list")
    assert "systemctl start relocd" in caught.value.hint


def test_a_socket_left_by_a_dead_daemon_says_connection_refused(
    server: ControlServer, tmp_path: Path
) -> None:
    dead = ControlServer(tmp_path / "dead.sock")
    with dead:
        pass
    with pytest.raises(DaemonUnavailableError, match="Connection refused"):
        Client(str(dead.path)).call("list")


@pytest.mark.usefixtures("as_nobody")
def test_a_socket_of_root_says_that_root_is_needed(server: ControlServer) -> None:
    if os.getuid() != 0:
        server.path.chmod(stat.S_IRUSR)
    with pytest.raises(
        DaemonUnavailableError, match=r"Permission denied\. Most commands need root"
    ) as caught:
        Client(str(server.path)).call("list")
    assert "sudo" in caught.value.hint


def test_a_connection_that_ends_early_is_no_answer(server: ControlServer, client: Client) -> None:
    server.answer("migrate", progress("memory", 1, 10))
    with pytest.raises(NoAnswerError, match="closed the connection without an answer"):
        client.call("migrate")


def test_half_a_line_is_no_answer(server: ControlServer, client: Client) -> None:
    server.answer("list", b'{"event": "result"')
    with pytest.raises(NoAnswerError):
        client.call("list")


def test_silence_beyond_the_timeout_is_no_answer(server: ControlServer, client: Client) -> None:
    done = threading.Event()
    server.answer("list", done)
    with pytest.raises(NoAnswerError, match=r"did not answer within 0\.05 s"):
        client.call("list", timeout_s=0.05)
    done.set()


@pytest.mark.parametrize(
    ("line", "what"),
    [
        (b"hello\n", "not JSON"),
        (b"[1]\n", "not an object"),
        (b"\xff\n", "not JSON"),
        (b"x" * (MAX_LINE_BYTES + 2), "a line of more"),
    ],
)
def test_nonsense_is_a_protocol_error(server: ControlServer, client: Client, line: bytes, what: str) -> None:
    server.answer("list", line)
    with pytest.raises(ProtocolError, match=what):
        client.call("list")


def test_a_request_that_is_too_long_is_not_sent(server: ControlServer, client: Client) -> None:
    with pytest.raises(UsageError, match="1048576 are allowed"):
        client.call("create", config="x" * MAX_LINE_BYTES)
    assert server.requests == []


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    answer=st.one_of(
        st.binary(max_size=200), st.binary(max_size=100).map(lambda b: b'{"event":' + b + b"}\n")
    )
)
def test_no_bytes_lead_to_another_error(server: ControlServer, client: Client, answer: bytes) -> None:
    server.answer("list", answer)
    with contextlib.suppress(RelocdError):
        assert client.call("list")["event"] == "result"
