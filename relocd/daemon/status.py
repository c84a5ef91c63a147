"""Relocations as ``relocctl status`` and ``relocctl history`` show them (docs/control.md)."""

from __future__ import annotations

import time

from relocd.daemon.source import SourceRelocation
from relocd.daemon.target import TargetRelocation
from relocd.handover.record import Mark, Record, Role
from relocd.handover.timeline import Moment
from relocd.model import DomainState, DomainStatus
from relocd.wire.messages import Decision

Fields = dict[str, object]

#: What a mark on this side's disk means, in a sentence's first half.
HERE = {
    (Role.SOURCE, Mark.BEGUN): "undecided: the domain belongs to this host",
    (Role.SOURCE, Mark.COMMITTED): "committed: the domain belongs to {peer}; the paused copy here is kept",
    (Role.SOURCE, Mark.UNDOING): "decided: the domain belongs to this host and is being resumed",
    (Role.TARGET, Mark.BEGUN): "undecided: the domain belongs to {peer}",
    (Role.TARGET, Mark.OWNED): "owned: the domain belongs to this host and is being resumed",
    (Role.TARGET, Mark.UNDOING): "decided: the domain belongs to {peer}; what is here is being removed",
}

#: What the peer's answer means.
THERE = {
    Decision.UNDECIDED: "it has not decided",
    Decision.COMMITTED: "the domain belongs to the target",
    Decision.ABORTED: "it has given the relocation up",
    Decision.PREPARED: "it holds a paused copy and waits for the decision",
    Decision.OWNED: "it runs the domain",
    Decision.LOST: "it owned the domain, and its copy has ended; it may have run",
    Decision.UNHEARD: "it has no record of this relocation",
}


def status_object(relocation: SourceRelocation | TargetRelocation) -> Fields:
    """One relocation under way, with what either side knows."""
    record = relocation.record
    return {
        **relocation.details(),
        "event": "status",
        "relocation": str(relocation.id),
        "role": record.role.value,
        "domain": record.domain.name,
        "uuid": str(record.domain.uuid),
        "peer": record.peer_host,
        "state": relocation.handover.state.value,
        "connected": relocation.connected,
        "mark": record.mark.value,
        "here": here(record),
        "there": there(relocation),
        "waiting": relocation.waiting,
    }


def here(record: Record) -> str:
    """What this host's disk says, as a sentence."""
    return HERE.get((record.role, record.mark), record.mark.value).format(peer=record.peer_host)


def there(relocation: SourceRelocation | TargetRelocation) -> str:
    """What the peer said last, as a sentence."""
    peer, word = relocation.record.peer_host, relocation.word
    if word is None:
        return f"connected to {peer}" if relocation.connected else f"{peer} has not been asked yet"
    ago = f"{max(0, time.time() - word.at_s):.0f} s ago"
    if word.decision is None:
        return f"{peer} does not answer ({ago}): {word.text}"
    return f"{peer} said {ago} that {THERE[word.decision]}"


def orphan_object(domain: DomainStatus) -> Fields:
    """A copy that belongs to no relocation the journal knows."""
    role = Role.TARGET if domain.state is DomainState.INCOMING else Role.SOURCE
    return {
        "event": "status",
        "relocation": None,
        "role": role.value,
        "domain": domain.name,
        "uuid": str(domain.uuid),
        "peer": None,
        "state": "orphaned",
        "connected": False,
        "mark": None,
        "here": "a paused copy of a relocation that the journal does not know",
        "there": "unknown: ask the other hosts whether the domain runs there",
        "waiting": True,
    }


def record_object(record: Record) -> Fields:
    """A relocation of the past, or as far as it has come."""
    return {
        "relocation": str(record.relocation),
        "role": record.role.value,
        "domain": record.domain.name,
        "uuid": str(record.domain.uuid),
        "peer": record.peer_host,
        "live": record.live,
        "mark": record.mark.value,
        "began_s": record.began_s,
        "outcome": record.outcome or None,
    }


def moment_object(moment: Moment) -> Fields:
    """One line of a timeline."""
    return {"at_s": round(moment.at_s, 3), "kind": moment.kind.value, **moment.detail}
