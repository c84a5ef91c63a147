"""TLS 1.3 on lanes. Keys are made for one relocation, and each side accepts one certificate only: its peer's.

OpenSSL must not be called for one connection by two threads at once. So a lock is held for each call, and no call
waits: the socket does not block, and a thread that has to wait does so in poll(2), without the lock. One direction
never holds the other one up for longer than a record, 16 KiB, takes.
"""

from __future__ import annotations

import contextlib
import os
import select
import socket
import ssl
import threading
from collections.abc import Sequence
from typing import Final

from relocd.carrier.control import LaneSecurity
from relocd.carrier.links import wait_for, wait_readable
from relocd.errors import StreamError

HANDSHAKE_S: Final = 10.0
"""For a peer whose carrier has got its lanes already, or is about to."""


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

    def _shake_hands(self, sock: socket.socket) -> ssl.SSLSocket:
        own = sock.dup()  # what TLS wraps is taken from who wraps it
        own.settimeout(HANDSHAKE_S)
        wrapped = self._context.wrap_socket(own, server_side=self._server_side, do_handshake_on_connect=False)
        wrapped.do_handshake()
        if wrapped.getpeercert(binary_form=True) != self._peer:
            raise OSError("the peer shows another certificate than it has announced")
        wrapped.setblocking(False)
        return wrapped


class TlsLink:
    """A socket with TLS around it."""

    def __init__(self, sock: socket.socket, wrapped: ssl.SSLSocket) -> None:
        self._sock = sock
        self._tls = wrapped
        self._turn = threading.Lock()

    def send(self, parts: Sequence[memoryview]) -> None:
        for part in parts:
            left = part.cast("B")
            while len(left):
                left = left[self._send_some(left) :]

    def _send_some(self, data: memoryview) -> int:
        while True:
            try:
                with self._turn:
                    return self._tls.send(data)
            except ssl.SSLWantWriteError:
                wait_for(self._sock, select.POLLOUT)
            except ssl.SSLWantReadError:
                wait_readable(self._sock)

    def receive(self, memory: memoryview) -> int:
        got = 0
        while got < len(memory):
            size = self._receive_some(memory[got:])
            if not size:
                break
            got += size
        return got

    def _receive_some(self, memory: memoryview) -> int:
        while True:
            try:
                with self._turn:
                    return self._tls.recv_into(memory)
            except ssl.SSLWantReadError:
                wait_readable(self._sock)
            except ssl.SSLWantWriteError:
                wait_for(self._sock, select.POLLOUT)

    def wait(self) -> None:
        with self._turn:
            there = self._tls.pending()
        if not there:
            wait_readable(self._sock)

    def send_last(self, data: bytes) -> None:
        with contextlib.suppress(OSError), self._turn:
            self._tls.send(data)

    def end(self) -> None:
        with contextlib.suppress(
            OSError
        ):  # not the wrapped one's: that would go on in plain for other threads
            self._sock.shutdown(socket.SHUT_WR)


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
