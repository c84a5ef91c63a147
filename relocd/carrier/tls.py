"""TLS 1.3 on lanes. Keys are made for one relocation, and each side accepts one certificate only: its peer's.

OpenSSL must not be called for one connection by two threads at once, and lane 0 carries the hypervisor's answers back
while pages rush by. So OpenSSL works on memory only, under a lock and without ever waiting; the socket is read and
written outside of that lock, in pieces of many records, since a record of 16 KiB alone is not worth a system call.
"""

from __future__ import annotations

import contextlib
import os
import socket
import ssl
import threading
import time
from collections.abc import Sequence
from typing import Final

from relocd.carrier.control import LaneSecurity
from relocd.carrier.links import wait_readable
from relocd.errors import StreamError
from relocd.tls.channel import Channel

HANDSHAKE_S: Final = 10.0
"""For a peer whose carrier has got its lanes already, or is about to. The whole of it, whatever comes meanwhile."""
PIECE_BYTES: Final = 128 << 10
"""What is encrypted before it is sent, and received before it is decrypted: a lane's buffer."""
ANSWERS_BYTES_MAX: Final = 64 << 10
"""What TLS itself has to answer leaves with the next frame. A peer that asks for more than this keeps us busy."""


class Armour:
    """Makes links out of sockets, all with the same keys."""

    def __init__(self, security: LaneSecurity, *, server_side: bool) -> None:
        self._server_side = server_side
        self._peer = bytes.fromhex(security.peer)
        self._context = _context(security, server_side=server_side)

    def trust_peer(self) -> None:
        """Read the peer's certificate, which came from the peer: for a process that is sealed by now.

        Raises StreamError.
        """
        try:
            self._context.load_verify_locations(cadata=self._peer)
        except (OSError, ValueError) as error:
            raise StreamError(f"the peer's certificate for the lanes does not serve: {error}") from None

    def link(self, sock: socket.socket, number: int) -> TlsLink:
        """Shake hands. Raises StreamError if the peer is another one than in the dialogue, or takes too long."""
        try:
            return TlsLink(sock, self._shake_hands(sock))
        except OSError as error:
            raise StreamError(f"lane {number} could not be encrypted: {_reason(error)}") from None
        finally:
            sock.settimeout(None)

    def _shake_hands(self, sock: socket.socket) -> Channel:
        deadline_s = time.monotonic() + HANDSHAKE_S
        channel = Channel(self._context, server_side=self._server_side)
        if not self._server_side:
            channel.begin()
        while not channel.established:
            sock.sendall(channel.outgoing())
            try:
                channel.feed(_piece(sock, deadline_s))
                channel.shake()
            except OSError:
                with contextlib.suppress(OSError):  # the peer is told why, if it listens
                    sock.sendall(channel.outgoing())
                raise
        sock.sendall(channel.outgoing())
        if channel.peer_certificate() != self._peer:
            raise OSError("the peer shows another certificate than it has announced")
        return channel


class TlsLink:
    """A socket with TLS around it."""

    def __init__(self, sock: socket.socket, channel: Channel) -> None:
        self._sock = sock
        self._channel = channel
        self._turn = threading.Lock()
        self._arriving = memoryview(bytearray(PIECE_BYTES))

    def send(self, parts: Sequence[memoryview]) -> None:
        for part in parts:
            left = part.cast("B")
            while len(left):
                self._sock.sendall(self._encrypt(left[:PIECE_BYTES]))
                left = left[PIECE_BYTES:]

    def receive(self, memory: memoryview) -> int:
        got = 0
        while got < len(memory):
            size = self._decrypt(memory[got:])
            if not size and not self._more():
                break
            got += size
        return got

    def wait(self) -> None:
        with self._turn:
            there = self._channel.holds_something
        if not there:
            wait_readable(self._sock)

    def send_last(self, data: bytes) -> None:
        with contextlib.suppress(OSError):
            self._sock.send(self._encrypt(memoryview(data)), socket.MSG_DONTWAIT)

    def end(self) -> None:
        with contextlib.suppress(OSError):
            self._sock.shutdown(socket.SHUT_WR)

    def _encrypt(self, data: memoryview) -> bytes:
        with self._turn:
            self._channel.send(data)
            return self._channel.outgoing()

    def _decrypt(self, memory: memoryview) -> int:
        with self._turn:
            size = self._channel.take(memory)
            if self._channel.unsent_bytes > ANSWERS_BYTES_MAX:
                raise OSError("the peer wants new keys again and again")
            return size

    def _more(self) -> bool:
        """Receive; False if there is nothing more to come."""
        size = 0 if self._channel.ended else self._sock.recv_into(self._arriving)
        with self._turn:
            self._channel.feed(self._arriving[:size])
        return size > 0


def _piece(sock: socket.socket, deadline_s: float) -> bytes:
    sock.settimeout(max(0.001, deadline_s - time.monotonic()))
    piece = sock.recv(PIECE_BYTES)
    if not piece:
        raise OSError("the peer closed it")
    return piece


def _context(security: LaneSecurity, *, server_side: bool) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER if server_side else ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.check_hostname = False  # a pair of one relocation has no name
    context.verify_mode = ssl.CERT_REQUIRED
    if server_side:
        context.num_tickets = 0
    try:
        _load_pair(context, security)
    except (OSError, ValueError) as error:
        raise StreamError(f"the keys of the lanes do not serve: {error}") from None
    return context


def _load_pair(context: ssl.SSLContext, security: LaneSecurity) -> None:
    """OpenSSL takes a pair from a file only. This one has no name and is in no file system."""
    descriptor = os.memfd_create("lane", os.MFD_CLOEXEC)
    try:
        os.write(descriptor, (security.certificate + security.key).encode())
        context.load_cert_chain(f"/proc/self/fd/{descriptor}")
    finally:
        os.close(descriptor)


def _reason(error: OSError) -> str:
    if isinstance(error, TimeoutError):
        return f"the peer did not shake hands within {HANDSHAKE_S:g} s"
    if isinstance(error, ssl.SSLCertVerificationError):
        return "the peer shows another certificate than it has announced"
    if isinstance(error, ssl.SSLError):
        reason = error.reason or str(error)
        return (
            "the peer does not speak TLS"
            if reason in ("WRONG_VERSION_NUMBER",)
            else reason.lower().replace("_", " ")
        )
    return error.strerror or str(error)
