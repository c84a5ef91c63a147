"""The cases of the fault table, what each must end in, and the page that is made of them."""

from __future__ import annotations

from attrs import frozen

from relocd.cli.exitcodes import EXIT_CODES
from relocd.pages.frames import MAGIC, VERSION, Kind

#: The steps of the dialogue, in their order, and how each shows on the wire. A lane's line and its answer pass on a
#: connection of their own. Boot files only travel to a target that lacks them.
STEPS: dict[str, str | bytes] = {
    "hello": "(hello ",
    "hello, answered": "(hello ",
    "probe": "(probe ",
    "propose": "(propose ",
    "accept": "(accept ",
    "lane": "(lane ",
    "ready": "(ready)",
    "boot files": MAGIC + bytes([VERSION, Kind.FILE]),
    "receiving": "(receiving)",
    "switchover": "(switchover)",
    "prepared": "(prepared ",
    "commit": "(commit)",
    "resumed": "(resumed",
}
ANSWERS = frozenset({"hello, answered"})
#: The target has no reservation before it has the proposal.
_GREETING = ("hello", "hello, answered")
_UNRECORDED = (*_GREETING, "probe", "propose")
_DECIDED = ("commit", "resumed")

VICTIMS = ("source daemon", "target daemon", "source carrier", "target carrier", "target QEMU", "source QEMU")
CLOSES = ("closed before", "closed after")
CUTS = ("cut before", "cut after")
FAULTS = (*VICTIMS, *CLOSES, *CUTS)

#: Steps at which a process is not there yet, or is gone already.
_ABSENT = {
    "target carrier": {*_UNRECORDED, "resumed"},
    "target QEMU": {*_UNRECORDED, "boot files"},
}
CASES = [(step, fault) for fault in FAULTS for step in STEPS if step not in _ABSENT.get(fault, ())]

HOME, MOVED, GONE = "source", "target", "gone"

#: What ``relocctl migrate`` says (regular expressions; an alternative is a reason that is told by another witness).
NO_DAEMON = "relocd closed the connection without an answer"
CARRIER_DIED = "the carrier process failed: it ended unasked"
KILLED = "the domain ended during its relocation: QEMU was killed by signal 9"
#: The last one if the source had decided before it heard, and asked.
NEVER_RAN = "its copy of the domain is gone and never ran"
BROKEN = (
    f"{KILLED}|could not be loaded|the hypervisor's stream is broken|the guest's memory is gone|{NEVER_RAN}"
)
NO_WORD = "closed the connection without a word"
LOST = "the connection to [0-9.]+ was lost"
NO_ANSWER = "did not answer"
SILENT = "was silent for [0-9]+ s"


@frozen
class Ending:
    """What a case ends in: where the domain runs, ``relocctl``'s exit code, the mark in either journal ("" if there
    is no record), and what the message says ("" if there is none). What is expected of the target's mark and of the
    message are regular expressions."""

    place: str
    exit_code: int
    source_mark: str
    target_mark: str
    said: str


def expected(step: str, fault: str) -> Ending:
    """What must come of ``fault`` while ``step`` was on its way."""
    place = _place(step, fault)
    if place == MOVED or (step, fault) == ("resumed", "target QEMU"):
        code, marks, said = 0, ("done", "arrived"), ""  # it ran there, and what killed it was no relocation
    else:
        code, said = _failure(step, fault)
        marks = ("aborted", _target_mark(step, fault))
    if fault == "source daemon":
        code, said = 12, NO_DAEMON
    return Ending(place, code, *marks, said)


def _place(step: str, fault: str) -> str:
    if fault == "source QEMU":
        return MOVED if step in _DECIDED else GONE
    if fault == "target QEMU" and step in _DECIDED:
        # At commit the paused copy died before it was told to run, and the target says so.
        return HOME if step == "commit" else GONE
    if step == "prepared" and fault in ("target carrier", "closed after", "cut after"):
        return MOVED  # the target has all it needs, and the source hears so
    return MOVED if step in _DECIDED else HOME


def _failure(step: str, fault: str) -> tuple[int, str]:
    early = step in (*_UNRECORDED, "accept", "lane", "ready")
    match fault:
        case "source QEMU":
            return 9, KILLED
        case "target QEMU":
            return 9, BROKEN
        case "source carrier" | "target carrier":
            return 8, CARRIER_DIED
        case "cut before" | "cut after":
            return 6, f"{NO_ANSWER}|{SILENT}" if early else SILENT
        case _:
            greeted = step not in _GREETING or (step, fault) == ("hello, answered", "closed after")
            return 6, LOST if greeted else NO_WORD


def _target_mark(step: str, fault: str) -> str:
    if step == "propose":  # it still arrives, and the end of the connection behind it, or while it is judged
        return "(aborted)?" if fault in ("source carrier", "source QEMU") or fault.endswith("after") else ""
    return "" if step in _UNRECORDED else "aborted"


def document(seen: dict[tuple[str, str], Ending]) -> str:
    """The table as a page; the same results give the same page."""
    lines = [*_HEAD, "", "| step | " + " | ".join(FAULTS) + " |", "|---|" + "---|" * len(FAULTS)]
    for step in STEPS:
        lines.append(f"| {step} | " + " | ".join(_cell(seen.get((step, fault))) for fault in FAULTS) + " |")
    lines += [
        *_LEGEND,
        "",
        "| exit code | meaning | `relocctl migrate` says (regular expression) |",
        "|---|---|---|",
    ]
    for code in EXIT_CODES:
        said = sorted({ending.said for ending in seen.values() if ending.exit_code == code.status})
        lines += [f"| {code.status} | {code.meaning} | {_code_span(text)} |" for text in said]
    return "\n".join([*lines, ""])


def _cell(ending: Ending | None) -> str:
    return "-" if ending is None else f"{ending.place}, {ending.exit_code}"


def _code_span(text: str) -> str:
    return f"`{text}`".replace("|", "\\|") if text else "the summary of the relocation"


_HEAD = """\
# The fault table

Written by `tests/e2e/test_fault_table.py` (`make faults`) from what it saw on real QEMU guests, with daemons,
carriers and hypervisors as they are installed, in network namespaces. A step of the dialogue (rows;
[protocol.md](protocol.md)) is held on its way, so that both hosts stand at a known point; then one thing breaks
(columns):

- A process is killed with SIGKILL, and the step goes on. A killed daemon is started again; what its connections held
  is lost with them.
- *closed*: all connections between the hosts are closed, before the message arrived or right behind it.
- *cut*: neither host receives a single packet of the other any more, in either direction and without a word to
  anybody, before the message arrived or right behind it, until both daemons have given up on each other. Then the
  link is back.

A cell says where the domain runs in the end, as the only copy, and the exit code of `relocctl migrate`.
""".splitlines()

_LEGEND = """
`source`, `target`: it runs there and not on the other host, the same guest, every page as it should be. `gone`: its
only running QEMU itself was killed, which ends a domain with or without a relocation; neither host starts another
copy. `-`: that process is not there at this step, or has nothing left to do.

After each case this was so on both hosts, too: no record of the journal is open, and those of both sides agree; no
process, tap, bridge port, socket, connection to the relocation port, firewall rule, memory reservation or unfinished
boot file is left; the message of `relocctl migrate` is a sentence that names what happened. Exit code 12 is only for
those who asked a daemon that was killed itself: its answer died with it, the decision did not.
""".splitlines()
