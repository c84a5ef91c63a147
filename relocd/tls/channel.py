"""TLS 1.3 over bytes that somebody else carries: what came in goes in, what is to be sent comes out."""

from __future__ import annotations

import contextlib
import ssl
from pathlib import Path
from typing import Final

from relocd.errors import ConfigError

RECORD_HANDSHAKE: Final = 0x16
"""The first byte of a TLS connection (RFC 8446, 5.1); no message of the dialogue begins with it."""

_READ_BYTES: Final = 1 << 16


def make_context(ca: Path, certificate: Path, key: Path, *, server_side: bool) -> ssl.SSLContext:
    """Both sides must show a certificate of this authority. Raises ConfigError if the files do not serve."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER if server_side else ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.check_hostname = False  # relocd.daemon.trust compares names, in its own words
    context.verify_mode = ssl.CERT_REQUIRED
    if server_side:
        context.num_tickets = 0
    try:
        context.load_verify_locations(ca)
        context.load_cert_chain(certificate, key)
    except (OSError, ValueError) as error:  # ssl.SSLError is an OSError
        raise ConfigError(
            f"the TLS files do not serve: {error}",
            source=str(certificate),
            hint="'relocctl tls show' looks at them; 'relocctl tls install' replaces them.",
        ) from error
    return context


class Channel:
    """One end of a TLS connection. Errors are ssl.SSLError; ``outgoing`` must be sent after an error, too."""

    def __init__(self, context: ssl.SSLContext, *, server_side: bool) -> None:
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._incoming, self._outgoing, server_side=server_side)
        self.established = False
        self.ended = False

    def begin(self) -> None:
        """Say the first word, as a client."""
        self.shake()

    def receive(self, data: bytes) -> bytes:
        """Take what came in; return what it says. ``established`` and ``ended`` may have become true."""
        self._incoming.write(data)
        if not self.established:
            self.shake()
        return self._read() if self.established else b""

    def shake(self) -> None:
        """Go on with the handshake, with what was fed; ``established`` tells whether that was all."""
        try:
            self._tls.do_handshake()
        except ssl.SSLWantReadError:
            return
        self.established = True

    def feed(self, data: bytes | memoryview) -> None:
        """Take what came in, for :meth:`take`."""
        self._incoming.write(data)

    def take(self, memory: memoryview) -> int:
        """What was fed says so much, which is in ``memory``, which must not be empty: a record, 16 KiB, at most.

        0 if more must be fed first, or if the peer has ended: ``ended`` tells.
        """
        try:
            size: int = self._tls.read(len(memory), memory)  # type: ignore[assignment]  # not bytes in this form
        except ssl.SSLWantReadError:
            return 0
        self.ended = not size
        return size

    @property
    def holds_something(self) -> bool:
        """Something was fed that was not taken yet; it may be a part of a record."""
        return bool(self._tls.pending() or self._incoming.pending)

    @property
    def unsent_bytes(self) -> int:
        """How much :meth:`outgoing` would return."""
        return self._outgoing.pending

    def send(self, data: bytes | memoryview) -> None:
        """Say something, as soon as the channel is established."""
        view = memoryview(data)
        while len(view):
            view = view[self._tls.write(view) :]

    def end(self) -> None:
        """Say that nothing more comes."""
        if self.established:
            with contextlib.suppress(ssl.SSLError):
                self._tls.unwrap()

    def outgoing(self) -> bytes:
        """What is to be sent now."""
        return self._outgoing.read()

    def peer_certificate(self) -> bytes:
        """The peer's certificate, which was verified, in binary form."""
        return self._tls.getpeercert(binary_form=True) or b""

    def _read(self) -> bytes:
        said = bytearray()
        memory = memoryview(bytearray(_READ_BYTES))
        while size := self.take(memory):
            said += memory[:size]
        return bytes(said)
