"""The day a host is gone for good: an operator decides, told what is known and what is risked.

Refused as long as the peer can still be asked, since its answer is better than anybody's guess.
"""

from __future__ import annotations

from attrs import frozen

from relocd.daemon.relocations import Relocations
from relocd.daemon.source import SourceRelocation
from relocd.daemon.status import Fields, here, record_object, there
from relocd.daemon.target import TargetRelocation
from relocd.errors import BadState, RelocdError, UsageError
from relocd.handover.record import Role
from relocd.handover.target import TargetState
from relocd.model import DomainState, DomainStatus
from relocd.wire.messages import Decision

#: Answers of a peer that leave the decision to an operator; every other one decides by itself.
HELPLESS = (Decision.LOST, Decision.UNHEARD)

#: By role and whether the copy here is to be resumed.
RISKS = {
    (Role.SOURCE, True): (
        "If {peer} runs the domain, or comes to run it, it will be running twice and will destroy its disks. "
        "Be sure that {peer} is switched off, or that 'relocctl list' there does not show the domain. "
        "What the guest did on {peer} since the switchover is lost."
    ),
    (Role.SOURCE, False): (
        "The paused copy here is destroyed. If {peer} does not have the domain, its memory is lost for good."
    ),
    (Role.TARGET, True): (
        "If {peer} did not commit, it has resumed the domain, which will then be running twice and will destroy its "
        "disks. Be sure that {peer} is switched off."
    ),
    (Role.TARGET, False): (
        "The copy here is destroyed. If {peer} committed and is gone for good, the domain's memory is lost with it."
    ),
}


@frozen
class Case:
    """What is to be decided: known facts as sentences, and the risk of what was asked for."""

    known: tuple[str, ...]
    risk: str

    def advice(self) -> Fields:
        """As the control socket tells it."""
        return {"decided": False, "known": list(self.known), "risk": self.risk}


async def resolve(relocations: Relocations, reference: str, *, resume_here: bool, sure: bool) -> Fields:
    """Decide about one relocation, or say what deciding would mean if the operator is not sure yet.

    Raises BadState if there is nothing to decide, or if the peer has the answer.
    """
    for domain in relocations.orphans():
        if reference in (domain.name, str(domain.uuid)):
            return await _resolve_orphan(relocations, domain, resume_here=resume_here, sure=sure)
    relocation = relocations.find(reference)
    case = await _examine(relocations, relocation, resume_here)
    if not sure:
        return case.advice()
    if not relocation.decide(resume_here=resume_here):
        raise _too_late(relocation)
    await relocation.over
    record = relocation.record
    return {"decided": True, **record_object(record), **record.outcome}


async def _examine(
    relocations: Relocations, relocation: SourceRelocation | TargetRelocation, resume_here: bool
) -> Case:
    _check_open(relocation, resume_here)
    if relocation.waiting:
        await _ask_once_more(relocation)
        _check_copy(relocations, relocation, resume_here)
    if isinstance(relocation, TargetRelocation) and relocation.waiting and resume_here:
        await relocation.require_loaded()
    record = relocation.record
    risk = RISKS[record.role, resume_here].format(peer=record.peer_host)
    return Case((f"Here: {here(record)}.", f"There: {there(relocation)}."), risk)


def _check_open(relocation: SourceRelocation | TargetRelocation, resume_here: bool) -> None:
    stuck = relocation.handover.state is TargetState.RESUMING and not resume_here
    if relocation.waiting or stuck:
        return
    if relocation.standing() is Decision.UNDECIDED:
        raise BadState(
            f"Relocation {relocation.id} of '{relocation.domain.name}' is not decided yet.",
            hint=f"'relocctl cancel {relocation.id}' ends it; the domain stays where it is.",
        )
    raise _too_late(relocation)


def _too_late(relocation: SourceRelocation | TargetRelocation) -> BadState:
    return BadState(
        f"Relocation {relocation.id} of '{relocation.domain.name}' is decided: {here(relocation.record)}.",
        hint="'relocctl status' shows how far it is.",
    )


async def _ask_once_more(relocation: SourceRelocation | TargetRelocation) -> None:
    """Return only if the peer cannot be reached or cannot say."""
    peer = relocation.record.peer_host
    if relocation.connected:
        raise BadState(
            f"{peer} is connected: the two hosts settle this by themselves.",
            hint="'relocctl status' shows how far they are.",
        )
    try:
        decision = await relocation.ask()
    except RelocdError:
        return
    if decision not in HELPLESS:
        raise BadState(
            f"{peer} answers, so there is nothing to decide by hand: {there(relocation)}.",
            hint="The two hosts settle this by themselves now; 'relocctl status' shows how far they are.",
        )


def _check_copy(
    relocations: Relocations, relocation: SourceRelocation | TargetRelocation, resume_here: bool
) -> None:
    if resume_here and relocations.context.driver.get(relocation.domain.uuid) is None:
        raise BadState(
            f"There is no copy of '{relocation.domain.name}' on this host any more.",
            hint="'--discard' closes the relocation.",
        )


async def _resolve_orphan(
    relocations: Relocations, domain: DomainStatus, *, resume_here: bool, sure: bool
) -> Fields:
    incoming = domain.state is DomainState.INCOMING
    role = Role.TARGET if incoming else Role.SOURCE
    known = (
        f"Here: a paused copy of '{domain.name}', {'received' if incoming else 'on its way out'}; the journal knows "
        "of no relocation.",
        "There: the other host is not known.",
    )
    if not sure:
        return Case(known, RISKS[role, resume_here].format(peer="the other host")).advice()
    driver = relocations.context.driver
    if incoming:
        copy_in = driver.incoming(domain.config)
        await (copy_in.resume(paused=False) if resume_here else copy_in.discard())
    else:
        copy_out = driver.outgoing(domain.uuid)
        await (copy_out.cancel() if resume_here else copy_out.release())
    return {"decided": True, "relocation": None, "domain": domain.name, "uuid": str(domain.uuid)}


def parse_choice(resume_here: bool, discard: bool) -> bool:
    """Exactly one of both must be asked for; True means resume. Raises UsageError."""
    if resume_here == discard:
        raise UsageError("say either 'resume_here' or 'discard'")
    return resume_here
