"""Two ends of a channel without sockets: what is said arrives, whatever the pieces; what is broken is explained."""

from __future__ import annotations

import ssl
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from relocd.errors import ConfigError, Untrusted
from relocd.tls.authority import Pair, issue
from relocd.tls.channel import RECORD_HANDSHAKE, Channel, make_context
from relocd.tls.words import SpeaksPlain, explain
from tests.certificates import AUTHORITY, LONG_AGO, OTHER_AUTHORITY, lay_out

GOOD = issue(AUTHORITY, ["hosta"])


def channel(directory: Path, own: Pair = GOOD, authority: Pair = AUTHORITY, *, server_side: bool) -> Channel:
    place = directory / ("server" if server_side else "client")
    files = [Path(path) for path in lay_out(place, authority, own).values()]
    return Channel(make_context(*files, server_side=server_side), server_side=server_side)


def join(client: Channel, server: Channel, size: int = 1 << 16) -> tuple[bytes, bytes]:
    """Carry bytes to and fro, in pieces, until nobody has more; what the client and the server heard."""
    heard = {client: b"", server: b""}
    quiet = False
    while not quiet:
        quiet = True
        for one, other in ((client, server), (server, client)):
            data = one.outgoing()
            quiet = quiet and not data
            for at in range(0, len(data), size):
                heard[other] += other.receive(data[at : at + size])
    return heard[client], heard[server]


@given(st.integers(1, 3000), st.binary(min_size=1, max_size=50_000))
@settings(max_examples=20, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_what_is_said_is_heard(tmp_path: Path, size: int, said: bytes) -> None:
    client, server = channel(tmp_path, server_side=False), channel(tmp_path, server_side=True)
    client.begin()
    join(client, server, size)
    assert client.established
    assert server.established
    client.send(said)
    assert join(client, server, size)[1] == said
    server.send(said)
    assert join(client, server, size)[0] == said
    client.end()
    join(client, server, size)
    assert server.ended
    assert server.peer_certificate() == GOOD.der()


def test_the_first_byte_tells_it() -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    client = Channel(context, server_side=False)
    client.begin()
    assert client.outgoing()[0] == RECORD_HANDSHAKE


@pytest.mark.parametrize(
    ("own", "authority", "of_server", "of_client"),
    [
        (issue(AUTHORITY, ["x"], now=LONG_AGO), AUTHORITY, "has expired", "of this host: it has expired"),
        (
            issue(OTHER_AUTHORITY, ["x"]),
            AUTHORITY,
            "comes from another authority",
            "this host: it comes from another authority",
        ),
    ],
    ids=["expired", "other authority"],
)
def test_the_server_refuses_and_both_know_why(
    tmp_path: Path, own: Pair, authority: Pair, of_server: str, of_client: str
) -> None:
    client, server = channel(tmp_path, own, authority, server_side=False), channel(tmp_path, server_side=True)
    client.begin()
    with pytest.raises(ssl.SSLError) as at_server:
        join(client, server)
    assert of_server in str(explain(at_server.value, "hosta"))
    with pytest.raises(ssl.SSLError) as at_client:
        client.receive(server.outgoing())
    error = explain(at_client.value, "hostb")
    assert of_client in str(error)
    assert "relocctl tls issue" in error.hint


def test_a_plain_peer_is_recognized(tmp_path: Path) -> None:
    client = channel(tmp_path, server_side=False)
    client.begin()
    with pytest.raises(ssl.SSLError) as caught:
        client.receive(b"(err (type untrusted) (value 'no TLS here'))\n")
    assert isinstance(explain(caught.value, "hostb"), SpeaksPlain)


def test_an_unknown_error_is_told_as_it_is() -> None:
    error = explain(ssl.SSLError("odd"), "hostb")
    assert type(error) is Untrusted
    assert "TLS with hostb failed" in str(error)


def test_files_that_do_not_fit_are_an_error(tmp_path: Path) -> None:
    files = lay_out(tmp_path, AUTHORITY, Pair(GOOD.certificate, OTHER_AUTHORITY.key))
    with pytest.raises(ConfigError, match="the TLS files do not serve"):
        make_context(*map(Path, files.values()), server_side=True)
