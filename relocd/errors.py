"""Every error that relocd raises on purpose, in one tree.

    RelocdError
    ├── ConfigError            a configuration or domain file is wrong (file:line:column)
    ├── UsageError             a command asks for something that cannot be
    │   ├── UnknownDomain
    │   └── BadState           the domain is not in a state that allows this
    ├── ProtocolError          a peer said something that the protocol does not allow
    ├── PeerUnreachable        no connection to the peer, or it was lost
    ├── Refused                the target says no, with all reasons at once
    ├── StreamError            the page stream is broken (checksum, order, limits)
    ├── DriverError            the hypervisor refused or failed
    ├── FirewallError          the host's packet filter cannot be read or changed
    ├── JournalError           the journal cannot be read or written
    ├── Untrusted              one of both hosts does not prove to the other who it is
    ├── Cancelled              an operator or a limit ended the relocation before commit
    └── OutcomeUnknown         the decision was made and cannot be confirmed yet

Each class carries what an interface needs: ``code`` (stable name on the wire and in JSON), ``exit_code``
(of relocctl and xm) and ``retryable`` (the same call may succeed later without a change by an operator).
Messages say what happened; ``hint`` says what to do next.
"""

from __future__ import annotations

from typing import ClassVar


class RelocdError(Exception):
    """Base of all. ``str()`` is one sentence for an administrator; ``hint`` is the next step, or empty."""

    code: ClassVar[str] = "internal"
    exit_code: ClassVar[int] = 1
    retryable: ClassVar[bool] = False

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.hint = hint


class ConfigError(RelocdError):
    """A file is wrong at a known place. ``line`` and ``column`` count from 1; 0 means the file as a whole."""

    code = "config"
    exit_code = 4

    def __init__(
        self, message: str, *, source: str = "", line: int = 0, column: int = 0, hint: str = ""
    ) -> None:
        place = ":".join([source or "<text>", *(str(n) for n in (line, column) if n)])
        super().__init__(f"{place}: {message}", hint=hint)
        self.reason = message
        self.source = source
        self.line = line
        self.column = column


class UsageError(RelocdError):
    """A command asks for something that cannot be."""

    code = "usage"
    exit_code = 2


class UnknownDomain(UsageError):
    """No domain goes by that name, id or UUID here. Exit code 3 is xm's since Xen 3.4."""

    code = "unknown-domain"
    exit_code = 3

    def __init__(self, reference: str) -> None:
        super().__init__(
            f"Domain '{reference}' does not exist.", hint="'relocctl list' shows the domains of this host."
        )


class BadState(UsageError):
    """The domain exists but is not in a state that allows this."""

    code = "bad-state"


class ProtocolError(RelocdError):
    """A peer said something that the protocol does not allow."""

    code = "protocol"
    exit_code = 5


class PeerUnreachable(RelocdError):
    """No connection to the peer, or it was lost."""

    code = "unreachable"
    exit_code = 6
    retryable = True


class Refused(RelocdError):
    """The target says no. ``reasons`` holds every reason as (code, text), not only the first."""

    code = "refused"
    exit_code = 7

    def __init__(self, reasons: tuple[tuple[str, str], ...], *, by: str = "", hint: str = "") -> None:
        who = f"{by} refused" if by else "refused"
        super().__init__(f"{who}: " + "; ".join(text for _, text in reasons), hint=hint)
        self.reasons = reasons


class StreamError(RelocdError):
    """The page stream is broken: checksum, order, size or a limit."""

    code = "stream"
    exit_code = 8


class DriverError(RelocdError):
    """The hypervisor refused or failed."""

    code = "hypervisor"
    exit_code = 9


class FirewallError(RelocdError):
    """The host's packet filter cannot be read or changed."""


class JournalError(RelocdError):
    """The journal cannot be read or written; relocd does not go on without it."""

    code = "journal"
    exit_code = 10


class Cancelled(RelocdError):
    """An operator, a signal or a limit ended the relocation before commit; the domain stays on the source."""

    code = "cancelled"
    exit_code = 11


class OutcomeUnknown(RelocdError):
    """The relocation was committed and the peer has not confirmed; both sides keep asking each other."""

    code = "unknown"
    exit_code = 12
    retryable = True


class Untrusted(RelocdError):
    """A host did not prove to the other one who it is, or one of both asks for TLS and the other has none."""

    code = "untrusted"
    exit_code = 13
