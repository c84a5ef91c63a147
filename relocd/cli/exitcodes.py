"""What the exit codes of relocctl mean: the one table that help texts, manuals and tests share.

The numbers of errors are those of :mod:`relocd.errors`; 0 and 130 belong to the command itself.
"""

from __future__ import annotations

from attrs import frozen

SUCCESS = 0
FAILURE = 1
UNKNOWN_DOMAIN = 3
REFUSED = 7
OUTCOME_UNKNOWN = 12
INTERRUPTED = 130
"""128 + SIGINT, the way a shell counts."""


@frozen
class ExitCode:
    """One exit code. ``code`` is the name that ``--json`` output carries."""

    status: int
    code: str
    meaning: str


EXIT_CODES = (
    ExitCode(SUCCESS, "ok", "done"),
    ExitCode(
        FAILURE, "internal", "anything not below; also: relocd does not run, or only root may talk to it"
    ),
    ExitCode(
        2, "usage", "the command asks for something that cannot be (also `bad-state`: not in this state)"
    ),
    ExitCode(UNKNOWN_DOMAIN, "unknown-domain", "no domain goes by that name, id or UUID on this host"),
    ExitCode(4, "config", "a configuration or domain file is wrong; the message has file, line and column"),
    ExitCode(5, "protocol", "the peer, or relocd itself, said something that the protocol does not allow"),
    ExitCode(6, "unreachable", "no connection to the peer, or it was lost before anything was decided"),
    ExitCode(REFUSED, "refused", "the target, or a check on this host, says no; all reasons are given"),
    ExitCode(8, "stream", "the stream of memory pages broke; the domain is on the source"),
    ExitCode(9, "hypervisor", "the hypervisor refused or failed"),
    ExitCode(10, "journal", "relocd cannot read or write its journal"),
    ExitCode(11, "cancelled", "the relocation was ended before it was decided; the domain is on the source"),
    ExitCode(
        OUTCOME_UNKNOWN, "unknown", "the outcome of the relocation is not known here: look at both hosts"
    ),
    ExitCode(
        13, "untrusted", "a host did not prove who it is (TLS), or has no TLS and the other one requires it"
    ),
    ExitCode(INTERRUPTED, "interrupted", "Ctrl-C; an undecided relocation is cancelled"),
)


def code_of(status: int) -> str:
    """The name of an exit code; ``internal`` for one that is not in the table."""
    return next((entry.code for entry in EXIT_CODES if entry.status == status), "internal")


def markdown_table() -> str:
    """The table as the manuals print it, without a newline at the end."""
    rows = [f"| {e.status} | `{e.code}` | {e.meaning} |" for e in EXIT_CODES]
    return "\n".join(["| exit code | name | meaning |", "|---|---|---|", *rows])


def plain_table() -> str:
    """The table as ``--help`` prints it, without a newline at the end."""
    return "\n".join(f"{e.status:5}  {e.meaning.replace('`', '')}" for e in EXIT_CODES)
