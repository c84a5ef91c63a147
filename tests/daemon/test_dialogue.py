"""What is known of a connection, also of one that is lost."""

from __future__ import annotations

import socket

from relocd.config import Config
from relocd.daemon.connect import Peer, channels_towards, connect, lanes_towards
from relocd.daemon.dialogue import Dialogue
from tests.daemon.rig import settled
from tests.reactor import call, run


async def connected(port: int) -> Dialogue:
    from twisted.internet import reactor

    return await connect(reactor, Peer("127.0.0.1", port), 10.0)


def test_a_connection_that_the_peer_has_closed_can_still_be_judged() -> None:
    """The peer may go at any moment, and what is asked of the connection then must not fail by itself."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        dialogue = run(connected(server.getsockname()[1]))
        server.accept()[0].close()
    assert settled(lambda: call(lambda: dialogue.lost) is not None)
    assert (dialogue.address, dialogue.peer) == ("127.0.0.1", "127.0.0.1")
    assert run(lanes_towards(Config(), dialogue)) >= 1
    assert run(channels_towards(Config(), dialogue, most=4)) <= 4
