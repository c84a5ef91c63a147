"""The relocation port from outside, over real connections: who gets in, what its first message makes of it."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from relocd.allow import AllowList
from relocd.config import Config
from relocd.config.model import TlsMode
from relocd.daemon.detach import detach
from relocd.daemon.dialogue import Dialogue, plain_address
from relocd.daemon.doorway import DoorwayFactory
from relocd.daemon.gate import Gate
from relocd.daemon.lookup import Resolver, confirmed_names
from relocd.daemon.session import Session
from relocd.daemon.trust import Trust
from relocd.wire.messages import Hello, Problem, decode, encode
from tests.reactor import call, run

HELLO = encode(Hello("test", "tester", 0))


class Desk:
    """What a session asks of the relocations when nothing relocates."""

    class context:  # noqa: N801 - stands for an attribute
        class config:  # noqa: N801
            idle_timeout_s = 60.0

        class trust:  # noqa: N801
            required = False

    def hello(self) -> Hello:
        return Hello("relocd test", "here", 8002)

    def lane_taker(self, lane: object, peer: str) -> None:
        return None


OpenDoor = Callable[..., tuple[str, int]]


@pytest.fixture
def door() -> Iterator[OpenDoor]:
    """Opens relocation ports on loopback; all are closed at the end."""
    ports: list[Any] = []

    def build(patterns: list[str], limit: int, handshake_s: float) -> tuple[str, int]:
        from twisted.internet import reactor

        resolver = Resolver(reactor, 2.0)
        gate = Gate(AllowList(patterns), resolver)
        factory = DoorwayFactory(
            reactor,  # type: ignore[arg-type]
            gate,
            lambda dialogue: Session(dialogue, Desk()) and None,  # type: ignore[arg-type]
            Trust(Config(tls=TlsMode.OFF), resolver),
            lambda: Config(max_connections=limit, handshake_timeout_s=handshake_s),
        )
        ports.append(reactor.listenTCP(0, factory, interface="127.0.0.1"))  # type: ignore[attr-defined]
        address = ports[-1].getHost()
        return address.host, address.port

    def open_door(patterns: list[str], limit: int = 8, handshake_s: float = 30.0) -> tuple[str, int]:
        return call(build, patterns, limit, handshake_s)

    yield open_door

    async def close() -> None:
        for port in ports:
            await port.stopListening()

    run(close())


def ask(address: tuple[str, int], data: bytes) -> bytes:
    """Send, then read until the other side closes or has answered with a line."""
    with socket.create_connection(address, timeout=10) as sock:
        sock.sendall(data)
        return _read(sock)


def _read(sock: socket.socket) -> bytes:
    got = b""
    while not got.endswith(b"\n"):
        try:
            part = sock.recv(65536)
        except ConnectionResetError:
            break
        if not part:
            break
        got += part
    return got


def test_a_peer_admitted_by_address_is_heard(door: OpenDoor) -> None:
    assert decode(ask(door([r"127\.0\.0\.1"]), HELLO).strip()) == Hello("relocd test", "here", 8002)


def test_a_peer_admitted_by_its_confirmed_name_is_heard(door: OpenDoor) -> None:
    assert "localhost" in confirmed_names("127.0.0.1")
    assert decode(ask(door([r"^localhost$"]), HELLO).strip()) == Hello("relocd test", "here", 8002)


@pytest.mark.parametrize(
    "patterns",
    [[], [r"10\..*"], [r"127\.0\.0"], [r"localhos"], [r"^elsewhere\.example$"]],
    ids=["nobody", "other address", "prefix of the address", "prefix of the name", "other name"],
)
def test_a_refused_peer_learns_nothing(door: OpenDoor, patterns: list[str]) -> None:
    assert ask(door(patterns), HELLO) == b""


def test_connect_and_close_is_harmless(door: OpenDoor) -> None:
    address = door([".*"], limit=64)
    for _ in range(20):
        socket.create_connection(address, timeout=10).close()
    assert ask(address, HELLO)


def test_a_person_gets_help(door: OpenDoor) -> None:
    answer = ask(door([".*"]), b"help\n")
    assert answer.startswith(b"(ok (help relocd")
    assert b"propose" in answer


@pytest.mark.parametrize("line", [b"receive\n", b"sslreceive\n", b"(receive)\n"])
def test_a_classic_peer_is_told_what_to_do(door: OpenDoor, line: bytes) -> None:
    answer = decode(ask(door([".*"]), line).strip())
    assert isinstance(answer, Problem)
    assert "relocctl" in answer.text


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"\x00\xff\xfe garbage\n", "UTF-8"),
        (b"(hello", ""),
        (b"GET / HTTP/1.0\r\n\r\n", ""),
        (b"(fly (to moon))\n", "unknown message"),
        (b"(commit)\n", "no meaning"),
        (b"(" * 5000 + b"\n", "deep"),
        (b"x" * 70000, "longer than"),
        (b"(inquire (relocation 00000000-0000-0000-0000-000000000001) (token ab))\n", "hello first"),
        (
            b"(lane (relocation 00000000-0000-0000-0000-000000000001) (token ab) (number 0))\n",
            "no relocation",
        ),
        (encode(Hello("new", "x", 0, 7, 9)), "no common protocol version"),
    ],
)
def test_garbage_gets_a_clear_error_and_costs_nothing_else(door: OpenDoor, data: bytes, says: str) -> None:
    address = door([".*"], handshake_s=0.5)
    answer = ask(address, data)
    if says:
        problem = decode(answer.strip())
        assert isinstance(problem, Problem)
        assert says in problem.text
    assert ask(address, HELLO), "the port must go on serving"


def test_a_silent_peer_is_let_go(door: OpenDoor) -> None:
    with socket.create_connection(door([".*"], handshake_s=0.2), timeout=10) as sock:
        assert _read(sock) == b""


def test_connections_beyond_the_limit_are_closed(door: OpenDoor) -> None:
    address = door([".*"], limit=2)
    held = [socket.create_connection(address, timeout=10) for _ in range(2)]
    for sock in held:
        sock.sendall(HELLO)
        assert _read(sock)
    assert ask(address, HELLO) == b""
    held.pop().close()
    held[0].sendall(b"help\n")
    assert _read(held[0])
    assert ask(address, HELLO)
    held[0].close()


@pytest.mark.parametrize(
    ("given", "plain"),
    [("::ffff:10.0.0.1", "10.0.0.1"), ("10.0.0.1", "10.0.0.1"), ("fe80::1%eth0", "fe80::1")],
)
def test_plain_addresses(given: str, plain: str) -> None:
    assert plain_address(given) == plain


def test_a_detached_connection_lives_on_outside_the_reactor() -> None:
    async def connect(port: int) -> socket.socket:
        from twisted.internet import reactor

        from relocd.daemon.connect import Peer
        from relocd.daemon.connect import connect as connect_dialogue

        dialogue: Dialogue = await connect_dialogue(reactor, Peer("127.0.0.1", port), 5)
        return detach(dialogue.tcp)

    with socket.create_server(("127.0.0.1", 0)) as server:
        ours = run(connect(server.getsockname()[1]))
        theirs, _ = server.accept()
        with ours, theirs:
            theirs.settimeout(10)
            ours.settimeout(10)
            ours.sendall(b"there")
            assert theirs.recv(16) == b"there"
            theirs.sendall(b"and back")
            assert ours.recv(16) == b"and back"
