"""Relocations between daemons with certificates; daemons that do not trust each other, and peers that misbehave."""

from __future__ import annotations

import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from relocd.cli.client import DaemonError
from relocd.config.model import TlsMode
from relocd.drivers.memory import Step, forget_hosts
from relocd.handover.record import Mark
from relocd.wire.messages import Hello, Problem, decode, encode
from tests.certificates import OTHER_AUTHORITY, tls
from tests.daemon.rig import DOMAIN_FILE, Daemon, Held, arrived, at_home, marks, settled
from tests.link import LaneThief, Wire, loopback

HELLO = encode(Hello("test", "tester", 0))
Make = Callable[..., Daemon]


@pytest.fixture
def make(directory: Path) -> Iterator[Make]:
    """Starts daemons; the first one gets the domain."""
    daemons: list[Daemon] = []

    def make(*holders: str, **options: Any) -> Daemon:
        place = directory / f"host{len(daemons)}"
        handshake_s = options.pop("handshake_timeout_s", 5.0)
        settings = (
            {"tls": TlsMode.OFF}
            if options == {"mode": TlsMode.OFF}
            else tls(place / "tls", *holders, **options)
        )
        daemons.append(Daemon(place, handshake_timeout_s=handshake_s, **settings))
        if len(daemons) == 1:
            daemons[0].client.call("create", config=DOMAIN_FILE, source="web.cfg")
        return daemons[-1]

    yield make
    for daemon in daemons:
        daemon.stop()
    forget_hosts()


def spoke_plain(source: Daemon, target: Daemon) -> bool:
    """Move the domain, and look whether the proposal could be read on the way."""
    wire = Wire(loopback(target.port), "(propose", action="deliver")
    wire.release()
    try:
        outcome = source.migrate(wire.port)
    finally:
        wire.close()
    assert outcome["outcome"] == "completed", outcome
    arrived(source, target)
    return wire.struck.is_set()


def test_there_and_back_again(make: Make) -> None:
    source, target = make(), make()
    assert source.migrate(target.port)["outcome"] == "completed"
    assert target.migrate(source.port, live=False)["outcome"] == "completed"
    assert source.runs


@pytest.mark.parametrize(
    ("ours", "theirs", "plain"),
    [
        (TlsMode.REQUIRE, TlsMode.REQUIRE, False),
        (TlsMode.PREFER, TlsMode.PREFER, False),
        (TlsMode.PREFER, TlsMode.REQUIRE, False),
        (TlsMode.PREFER, TlsMode.OFF, True),
        (TlsMode.OFF, TlsMode.PREFER, True),
    ],
)
def test_what_goes_over_tls(make: Make, ours: TlsMode, theirs: TlsMode, plain: bool) -> None:
    assert spoke_plain(make(mode=ours), make(mode=theirs)) is plain


def test_prefer_without_a_certificate_is_plain(directory: Path, make: Make) -> None:
    source = make()
    source.stop()
    missing = directory / "missing"
    source.config = evolve_tls(source, TlsMode.PREFER, str(missing))
    source.start()
    assert spoke_plain(source, make(mode=TlsMode.PREFER))


def evolve_tls(daemon: Daemon, mode: TlsMode, place: str) -> Any:
    from attrs import evolve

    return evolve(daemon.config, tls=mode, tls_ca=place, tls_certificate=place, tls_key=place)


@pytest.mark.parametrize(
    ("ours", "theirs", "says"),
    [
        (TlsMode.REQUIRE, TlsMode.OFF, "127.0.0.1 does not speak TLS"),
        (TlsMode.OFF, TlsMode.REQUIRE, "takes relocations over TLS only"),
    ],
)
def test_require_and_off_do_not_meet(make: Make, ours: TlsMode, theirs: TlsMode, says: str) -> None:
    source, target = make(mode=ours), make(mode=theirs)
    outcome = source.migrate(target.port)
    assert (outcome["outcome"], outcome["code"], outcome["exit_code"]) == ("failed", "untrusted", 13)
    assert says in outcome["error"]
    assert "relocctl tls" in outcome["error"] + outcome["hint"]
    at_home(source, target)


BAD: dict[str, tuple[dict[str, Any], str, str]] = {
    "expired": (
        {"expired": True},
        "does not accept the certificate of this host: it has expired",
        "certificate of 127.0.0.1 has expired",
    ),
    "other authority": (
        {"authority": OTHER_AUTHORITY},
        "certificate of 127.0.0.1 comes from another authority",
        "certificate of 127.0.0.1 comes from another authority",
    ),
    "other name": (
        {"name": "elsewhere.example"},
        "showed is for elsewhere.example, not for 127.0.0.1",
        "showed is for elsewhere.example, not for 127.0.0.1",
    ),
}


@pytest.mark.parametrize("case", BAD)
@pytest.mark.parametrize("side", ["source", "target"])
def test_a_certificate_that_does_not_prove_it_is_refused_in_words(make: Make, case: str, side: str) -> None:
    options, of_source, of_target = BAD[case]
    options = dict(options)
    name = options.pop("name", "127.0.0.1")
    bad: Callable[[], Daemon] = lambda: make(name, **options)  # noqa: E731
    source = bad() if side == "source" else make()
    target = bad() if side == "target" else make()
    outcome = source.migrate(target.port)
    assert (outcome["outcome"], outcome["code"]) == ("failed", "untrusted")
    assert (of_source if side == "source" else of_target) in outcome["error"]
    assert "relocctl tls issue" in outcome["error"] + outcome["hint"]
    at_home(source, target)


def test_a_name_is_compared_with_the_name_that_was_called(make: Make) -> None:
    source, target = make("127.0.0.1"), make("localhost", "127.0.0.1")
    reply = source.client.call("migrate", domain="web", host="localhost", port=target.port, live=True)
    assert reply["outcome"] == "completed"
    with pytest.raises(DaemonError) as caught:
        target.client.call("migrate", domain="web", host="localhost", port=source.port, live=True)
    assert "is for 127.0.0.1, not for localhost" in str(caught.value)


def test_a_lost_link_is_found_again_over_tls(make: Make) -> None:
    source, target = make(), make()
    target.host.fail(Step.RESUME, times=2)
    wire = Wire(loopback(target.port))
    outcome: dict[str, Any] = {}
    moving = threading.Thread(target=lambda: outcome.update(source.migrate(wire.port)))
    moving.start()
    try:
        assert settled(lambda: marks(source) == [Mark.COMMITTED], source)
        wire.cut()
        moving.join(60)
        assert outcome["outcome"] == "completed", outcome
        arrived(source, target)
    finally:
        wire.close()


def test_a_relocation_over_tls_is_not_continued_in_plain(make: Make) -> None:
    source, target = make(mode=TlsMode.PREFER), make(mode=TlsMode.PREFER)
    held = Held(source, target, "(lane")
    (record,) = source.client.call("status")["relocations"]
    token = next(iter(target.service._relocations._targets.values())).record.token
    question = f"(inquire (relocation {record['relocation']}) (token {token}))\n".encode()
    assert b"is not continued without" in say(target.port, HELLO + question)
    assert held.go_on()["outcome"] == "completed"
    arrived(source, target)


class Downgrader:
    """Says that there is no TLS here, to whoever asks, and writes down how each begins."""

    def __init__(self, port: int) -> None:
        self.heard: list[bytes] = []
        self._server = socket.create_server(("127.0.0.1", port))
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        while True:
            try:
                sock, _ = self._server.accept()
            except OSError:
                return
            with sock:
                self.heard.append(sock.recv(65536))
                sock.sendall(encode(Problem("untrusted", "this host does not speak TLS")))

    def close(self) -> None:
        self._server.shutdown(socket.SHUT_RDWR)
        self._server.close()


def test_nor_after_a_restart(make: Make) -> None:
    """Where TLS is only preferred, somebody on the way could say that there is none, and would be told the token."""
    source, target = make(mode=TlsMode.PREFER), make(mode=TlsMode.PREFER)
    target.host.fail(Step.RESUME, times=1000)
    moving = threading.Thread(target=source.migrate, args=[target.port], daemon=True)
    moving.start()
    assert settled(lambda: marks(source) == [Mark.COMMITTED], source)
    source.stop()
    target.stop()
    moving.join(60)
    false = Downgrader(target.port)
    source.start()
    try:
        assert settled(lambda: len(false.heard) >= 2, source)
        assert all(first.startswith(b"\x16") for first in false.heard), false.heard
    finally:
        false.close()
        target.host.faults.clear()
        target.start()
    arrived(source, target)


def test_the_link_is_measured_through_tls(make: Make) -> None:
    source, target = make(), make()
    reply = source.client.call("check", domain="web", host="127.0.0.1", port=target.port, measure=True)
    assert reply["prediction"] is not None, reply


def say(port: int, data: bytes) -> bytes:
    """Say that in plain, and hear all of the answer."""
    with socket.create_connection(("127.0.0.1", port), timeout=20) as sock:
        sock.sendall(data)
        return _hear(sock)


def _hear(sock: socket.socket) -> bytes:
    heard = b""
    while True:
        try:
            piece = sock.recv(65536)
        except ConnectionResetError:
            return heard
        if not piece:
            return heard
        heard += piece


def test_a_plain_peer_is_told_what_to_do(make: Make) -> None:
    answer = decode(say(make().port, HELLO).strip())
    assert isinstance(answer, Problem)
    assert answer.code == "untrusted"
    assert "over TLS only" in answer.text


@pytest.mark.parametrize(
    "hello",
    [b"\x16", b"\x16\x03\x01\x00\xff" + b"\xff" * 255, b"\x16" * 70000, b"\x16\x03\x01\x02\x00\x01"],
    ids=["first byte", "garbage", "long garbage", "half a hello"],
)
def test_a_broken_handshake_ends_in_time_and_costs_nothing_else(make: Make, hello: bytes) -> None:
    source, target = make(), make(handshake_timeout_s=0.3)
    say(target.port, hello)
    assert settled(lambda: _connections(target) == 0, target)
    assert source.migrate(target.port)["outcome"] == "completed"


def test_a_handshake_that_drips_is_cut_off(make: Make) -> None:
    """A byte now and then does not prolong it."""
    daemon = make(handshake_timeout_s=0.5)
    with socket.create_connection(("127.0.0.1", daemon.port), timeout=0.02) as sock:
        heard = None
        for _ in range(5000):
            try:
                sock.send(b"\x16")
                heard = sock.recv(100)
                break
            except TimeoutError:
                continue
            except OSError:
                heard = b""
                break
    assert heard is not None


def test_handshakes_count_as_connections(make: Make) -> None:
    daemon = make()
    daemon.set_config(max_connections=2)
    held = [socket.create_connection(("127.0.0.1", daemon.port), timeout=20) for _ in range(2)]
    for sock in held:
        sock.sendall(b"\x16\x03\x01")
    assert settled(lambda: _connections(daemon) == 2, daemon)
    for sock in held:
        sock.close()
    assert settled(lambda: _connections(daemon) == 0, daemon)


def _connections(daemon: Daemon) -> int:
    for port in daemon.service._ports:
        if hasattr(port, "factory") and hasattr(port.factory, "trust"):
            return int(port.factory.crowd.count)
    raise AssertionError("the daemon listens to nobody")


def test_a_peer_without_a_certificate_is_refused(make: Make) -> None:
    daemon = make()
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    with socket.create_connection(("127.0.0.1", daemon.port), timeout=20) as sock:
        wrapped = context.wrap_socket(sock)
        wrapped.sendall(HELLO)
        with pytest.raises(ssl.SSLError, match=r"(?i)certificate.required"):
            wrapped.recv(100)


def test_an_older_tls_is_refused(make: Make) -> None:
    daemon = make()
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    with (
        socket.create_connection(("127.0.0.1", daemon.port), timeout=20) as sock,
        pytest.raises(ssl.SSLError),
    ):
        context.wrap_socket(sock)


def test_a_lane_shows_its_own_token_once(make: Make) -> None:
    """What is read on the way serves neither for another lane nor for a question."""
    source, target = make(), make()
    held = Held(source, target, "(lane")
    (record,) = source.client.call("status")["relocations"]
    token = next(iter(target.service._relocations._targets.values())).record.token
    line = f"(lane (relocation {record['relocation']}) (token {token}) (number 0))\n"
    assert b"no relocation waits" in say(target.port, line.encode())
    assert held.go_on()["outcome"] == "completed"
    arrived(source, target)


def test_a_foreign_lane_ends_the_relocation_and_not_the_domain(make: Make) -> None:
    """Somebody on the way who takes a lane's place cannot shake hands."""
    source, target = make(), make()
    wire = LaneThief(loopback(target.port))
    try:
        outcome = source.migrate(wire.port)
        assert outcome["outcome"] == "failed", outcome
        assert "could not be encrypted" in outcome["error"]
        at_home(source, target)
    finally:
        wire.close()


def test_a_new_certificate_is_taken_with_a_reload(make: Make, directory: Path) -> None:
    source, target = make(expired=True), make()
    assert source.migrate(target.port)["code"] == "untrusted"
    tls(directory / "host0" / "tls")
    source.reload()
    assert source.migrate(target.port)["outcome"] == "completed"


def test_a_reload_with_a_broken_certificate_changes_nothing(make: Make, directory: Path) -> None:
    source, target = make(), make()
    (directory / "host0" / "tls" / "tls_certificate").write_text("nonsense")
    source.reload()
    assert source.migrate(target.port)["outcome"] == "completed"


def test_info_tells_of_the_certificate(make: Make) -> None:
    assert make().client.call("info")["tls"].startswith("require; certificate of 127.0.0.1, until 20")
    assert "has expired" in make(expired=True).client.call("info")["tls"]
    assert make(mode=TlsMode.OFF).client.call("info")["tls"] == "off"
