"""Take a connection out of the reactor's hands, whole, so that a carrier can have it."""

from __future__ import annotations

import socket

from twisted.internet.error import ConnectionDone
from twisted.internet.tcp import Connection
from twisted.python.failure import Failure

from relocd.daemon.dialogue import Dialogue
from relocd.tls.stream import TlsStream


def detach_stream(dialogue: Dialogue) -> socket.socket | TlsStream:
    """The same for a dialogue, its TLS included, of which nothing may be pending either."""
    sock = detach(dialogue.tcp)
    return TlsStream(sock, dialogue.channel) if dialogue.channel is not None else sock


def detach(transport: Connection) -> socket.socket:
    """Return a blocking duplicate of the connection's socket; Twisted forgets the connection without ending it.

    The protocol's ``connectionLost`` is called with ConnectionDone. Bytes that Twisted has not written yet are lost,
    so nothing may be pending.
    """
    sock: socket.socket = transport.getHandle().dup()
    # Twisted would shut the connection down, duplicates included, before it closes its own descriptor. There is no
    # public way to say no; its own adoption of listening descriptors uses this attribute.
    transport._shouldShutdown = False
    transport.unregisterProducer()
    transport.stopReading()
    transport.stopWriting()
    transport.connectionLost(Failure(ConnectionDone()))
    sock.setblocking(True)
    return sock
