"""The page docs/hand-over.md, made from the transition tables, so that it cannot say anything else.

python -m relocd.handover.document > docs/hand-over.md
"""

from __future__ import annotations

import enum
import sys
from collections.abc import Iterator, Mapping
from typing import TypeVar

from relocd.handover.machine import Transition
from relocd.handover.record import Mark
from relocd.handover.source import SOURCE_RECOVERY, SOURCE_TABLE, SourceState
from relocd.handover.target import TARGET_RECOVERY, TARGET_TABLE, TargetState

S = TypeVar("S", bound=enum.StrEnum)
V = TypeVar("V", bound=enum.StrEnum)
F = TypeVar("F", bound=enum.StrEnum)
Table = Mapping[tuple[S, V], Transition[S, F]]

_HEAD = """\
# The hand-over

Made from `relocd/handover/` by `python -m relocd.handover.document`; a test keeps it so.

At every instant exactly one host may run a domain. Each side of a relocation walks the table of its side. An event
that the table does not list for the present state changes nothing. Effects are carried out in their order, and those
of one transition are done before those of the next begin.

What makes it sound:

- Before `write-committed` has succeeded the source owns the domain, and whatever happens leads it home. After it the
  target owns it. The source resumes its paused copy only on the target's word that its own never ran and is gone.
- A prepared target neither runs nor discards its copy on a guess: it asks, without end.
- Each decision is on disk (a *mark*) before anything is done because of it; whoever is started again goes on from it.
- A disk may fail a write and keep it all the same. So a source that is started again and finds its domain at home
  (running, or paused as an operator left it) knows that it had not committed, whatever the disk says.
- Where a host is gone for good, only an operator decides (`relocctl resolve`), and that is on disk first, too: a host
  that comes back after all finds out and fits in.
"""

_MARKS = {
    Mark.BEGUN: "undecided; the source owns the domain",
    Mark.COMMITTED: "source: the target owns it, not confirmed yet",
    Mark.OWNED: "target: it is this host's own, on its way to run",
    Mark.UNDOING: "decided against the target's copy, which never ran; being undone",
    Mark.DONE: "source: the target has it, the copy here is destroyed",
    Mark.ARRIVED: "target: it runs here",
    Mark.ABORTED: "undone on this side",
    Mark.LOST: "target: owned, and ended before it was seen to run; it may have run",
}


def document() -> str:
    """The whole page."""
    lines = [_HEAD]
    lines += _side("The source", SOURCE_TABLE, SourceState.OPENING)
    lines += _side("The target", TARGET_TABLE, TargetState.RESERVED)
    lines += [
        "## The marks",
        "",
        "| mark | means | after a restart, the source | after a restart, the target |",
    ]
    lines += ["|---|---|---|---|"]
    for mark, meaning in _MARKS.items():
        source, target = SOURCE_RECOVERY.get(mark), TARGET_RECOVERY.get(mark)
        lines.append(f"| `{mark}` | {meaning} | {_recovery(source)} | {_recovery(target)} |")
    lines += ["", "A target that is `begun` and has no copy goes on with `discarding`."]
    return "\n".join(lines) + "\n"


def _recovery(begin: Transition[S, F] | None) -> str:
    if begin is None:
        return "-"
    return f"`{begin.state}`: {_effects(begin)}"


def _effects(transition: Transition[S, F]) -> str:
    return ", ".join(f"`{effect}`" for effect in transition.effects) or "-"


def _side(title: str, table: Table[S, V, F], first: S) -> Iterator[str]:
    yield from ("## " + title, "", *_diagram(table, first), "")
    yield from ("| state | event | next state | effects |", "|---|---|---|---|")
    for (state, event), transition in table.items():
        yield f"| `{state}` | `{event}` | `{transition.state}` | {_effects(transition)} |"
    yield ""


def _diagram(table: Table[S, V, F], first: S) -> Iterator[str]:
    """A Mermaid state diagram: one arrow for all events that lead from one state to another."""
    arrows: dict[tuple[S, S], list[V]] = {}
    for (state, event), transition in table.items():
        arrows.setdefault((state, transition.state), []).append(event)
    yield from ("```mermaid", "stateDiagram-v2", f"    [*] --> {_name(first)}")
    for (state, following), events in arrows.items():
        yield f"    {_name(state)} --> {_name(following)}: {', '.join(events)}"
    leaving = {state for state, _ in table}
    for state in dict.fromkeys(transition.state for transition in table.values()):
        if state not in leaving:
            yield f"    {_name(state)} --> [*]"
    yield "```"


def _name(state: enum.StrEnum) -> str:
    """Mermaid takes no hyphens in the names of states."""
    return state.value.replace("-", "_")


if __name__ == "__main__":
    sys.stdout.write(document())
