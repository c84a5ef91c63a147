"""Predictions between two daemons, and peers that measure badly."""

from __future__ import annotations

import socket
import struct
from typing import Any

import pytest
from attrs import evolve

from relocd.cli.client import DaemonError
from relocd.daemon import measure
from relocd.net import gauge
from relocd.wire.messages import (
    MAX_MEASURE_BYTES,
    Hello,
    Measure,
    Measured,
    Message,
    Problem,
    Ready,
    decode,
    encode,
)
from tests.daemon.rig import Daemon, settled
from tests.reactor import call

HELLO = encode(Hello("test", "tester", 0))
WAIT_S = 20.0


@pytest.fixture(autouse=True)
def _small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Loopback is fast enough to be measured with little."""
    monkeypatch.setattr(measure, "MEASURE", Measure(8 << 20, 300))


def check(source: Daemon, target: Daemon) -> dict[str, Any]:
    reply: dict[str, Any] = source.client.call(
        "check", domain="web", host="127.0.0.1", port=target.port, measure=True
    )
    return reply


def predicted(daemon: Daemon) -> list[dict[str, Any]]:
    """The predictions in the timeline of the latest relocation."""
    identity = daemon.client.call("history")["relocations"][0]["relocation"]
    (record,) = daemon.client.call("history", relocation=identity)["relocations"]
    return [moment for moment in record["timeline"] if moment["kind"] == "prediction"]


class Caller:
    """A peer that says hello and asks to measure."""

    def __init__(self, daemon: Daemon) -> None:
        self.sock = socket.create_connection(("127.0.0.1", daemon.port), timeout=WAIT_S)
        self._lines = self.sock.makefile("rb")

    def greet(self) -> None:
        self.sock.sendall(HELLO)
        assert isinstance(self.read(), Hello)

    def ask(self, size_bytes: int = 1 << 20, duration_ms: int = 2000) -> Message:
        self.sock.sendall(encode(Measure(size_bytes, duration_ms)))
        return self.read()

    def read(self) -> Message:
        return decode(self._lines.readline().rstrip())

    def close(self) -> None:
        self._lines.close()
        self.sock.close()


@pytest.fixture
def caller(target: Daemon) -> Any:
    caller = Caller(target)
    yield caller
    caller.close()


def test_a_check_without_it_measures_nothing(source: Daemon, target: Daemon) -> None:
    reply = source.client.call("check", domain="web", host="127.0.0.1", port=target.port)
    assert "prediction" not in reply


def test_a_prediction_has_numbers_and_sentences(source: Daemon, target: Daemon) -> None:
    reply = check(source, target)
    assert reply["passed"]
    prediction = reply["prediction"]
    assert prediction["verdict"] == "converges"
    assert prediction["live"]["duration_s"] > 0
    assert prediction["offline"]["downtime_ms"] > 0
    assert prediction["measured"]["link_bytes_s"] > 0
    assert prediction["sentences"]
    assert source.runs


def test_the_relocation_that_follows_remembers_it(source: Daemon, target: Daemon) -> None:
    prediction = check(source, target)["prediction"]
    assert source.migrate(target.port)["outcome"] == "completed"
    (moment,) = predicted(source)
    assert moment["live"] == prediction["live"]
    assert moment["sentences"] == prediction["sentences"]


def test_an_old_prediction_is_forgotten(
    source: Daemon, target: Daemon, monkeypatch: pytest.MonkeyPatch
) -> None:
    check(source, target)
    monkeypatch.setattr(measure, "FRESH_S", -1.0)
    assert source.migrate(target.port)["outcome"] == "completed"
    assert predicted(source) == []


def test_an_older_peer_cannot_be_measured_and_the_check_stands(
    source: Daemon, target: Daemon, monkeypatch: pytest.MonkeyPatch
) -> None:
    context = target.service._context
    older = evolve(call(context.hello), features=("boot-files", "lanes"))
    monkeypatch.setattr(target.service._relocations, "hello", lambda: older)
    reply = check(source, target)
    assert reply["passed"]
    assert reply["prediction"] is None
    assert "does not know how" in reply["no_prediction"]


def test_the_limit_of_the_configuration_is_the_links(source: Daemon, target: Daemon) -> None:
    source.set_config(max_bandwidth_bytes_s=1 << 20)
    assert check(source, target)["prediction"]["measured"]["link_bytes_s"] < 4 << 20


def test_a_domain_is_measured_once_at_a_time(source: Daemon, target: Daemon) -> None:
    measurements = source.service._relocations.measurements
    call(measurements._guests.add, next(iter(source.host.domains)))
    with pytest.raises(DaemonError, match="being measured"):
        check(source, target)


def test_a_peer_is_told_what_arrived(caller: Caller) -> None:
    caller.greet()
    assert caller.ask(8 << 20) == Ready()
    gauge.send(caller.sock, 8 << 20, WAIT_S)
    caller.sock.settimeout(WAIT_S)
    answer = caller.read()
    assert isinstance(answer, Measured)
    assert 0 < answer.size_bytes <= 8 << 20
    assert answer.duration_us > 0


def test_nobody_measures_before_hello(caller: Caller) -> None:
    answer = caller.ask()
    assert isinstance(answer, Problem)
    assert "hello" in answer.text


@pytest.mark.parametrize(
    "wish", [f"(bytes {MAX_MEASURE_BYTES + 1}) (milliseconds 1)", "(bytes 1) (milliseconds 9999)"]
)
def test_more_than_the_limits_is_refused(caller: Caller, wish: str) -> None:
    caller.greet()
    caller.sock.sendall(f"(measure {wish})\n".encode())
    assert isinstance(caller.read(), Problem)


def test_bytes_before_ready_are_refused(caller: Caller) -> None:
    caller.greet()
    caller.sock.sendall(encode(Measure(1000, 1000)) + b"early")
    assert isinstance(caller.read(), Problem)


def test_one_at_a_time_for_a_peer_and_free_again_afterwards(target: Daemon, caller: Caller) -> None:
    caller.greet()
    assert caller.ask() == Ready()
    second = Caller(target)
    second.greet()
    answer = second.ask()
    assert isinstance(answer, Problem)
    assert answer.code == "refused"
    second.close()
    caller.close()
    _free(target)


def test_a_peer_that_never_sends_is_given_up(
    target: Daemon, caller: Caller, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gauge, "FIRST_BYTE_S", 0.05)
    caller.greet()
    assert caller.ask() == Ready()
    assert caller.sock.recv(1) == b""
    _free(target)


def test_a_stop_waits_for_no_measurement(
    target: Daemon, caller: Caller, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gauge, "FIRST_BYTE_S", 1000.0)
    caller.greet()
    assert caller.ask() == Ready()
    call(target.service._relocations.measurements.stop)
    assert caller.sock.recv(1000) == b""
    _free(target)


def test_a_peer_that_sends_too_much_gets_its_answer_and_no_more(target: Daemon, caller: Caller) -> None:
    caller.greet()
    assert caller.ask(1000, 100) == Ready()
    gauge.send(caller.sock, 4 << 20, WAIT_S)
    assert isinstance(caller.read(), Measured)
    caller.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    caller.close()
    _free(target)


def _free(daemon: Daemon) -> None:
    """Nothing is being measured there any more."""
    measurements = daemon.service._relocations.measurements
    assert settled(lambda: not measurements._peers, daemon)
