"""The source's half of a probe: tries a domain's bridges before it is proposed, joins those that are apart."""

from __future__ import annotations

import secrets
from collections.abc import Mapping

from attrs import evolve, frozen
from twisted.internet.threads import deferToThread

from relocd.config.model import L2Mode
from relocd.daemon.connect import expect
from relocd.daemon.context import Context
from relocd.daemon.dialogue import Dialogue
from relocd.host import facts
from relocd.model import DomainConfig
from relocd.net.probing import Ends, Heard, ask, open_ends
from relocd.preflight.result import Check, Verdict, failures
from relocd.preflight.segments import agreed_mode, unproven
from relocd.segment.probe import NONCE_BYTES, WAIT_S, probe_key
from relocd.segment.proof import BridgeEnd, EndState, same_bridge
from relocd.wire.messages import Hello, Intent, Propose
from relocd.wire.network import Probe, Probing

FEATURE = "l2-probe"


def bridges_of(domain: DomainConfig) -> tuple[str, ...]:
    """The bridges that a domain's interfaces are on."""
    return tuple(sorted({vif.bridge for vif in domain.vifs}))


def completed(checks: tuple[Check, ...], domain: DomainConfig, host: str) -> tuple[Check, ...]:
    """All checks of a target, with what one that does not know the probe cannot say itself."""
    lacks_bridges = any(check.name == "bridges" for check in failures(checks))
    if not domain.vifs or lacks_bridges or any(check.name == "segment" for check in checks):
        return checks
    return (*checks, Check("segment", Verdict.WARN, *unproven(host)))


def open_bridges(names: tuple[str, ...]) -> Ends:
    """See relocd.net.probing.open_ends. Blocks."""
    return open_ends(names, facts.bridges())


@frozen
class _Tried:
    """What one probe found out."""

    heard: Heard
    mode: L2Mode
    apart: tuple[str, ...]  # bridges that could be joined


async def probed(context: Context, dialogue: Dialogue, theirs: Hello, proposal: Propose) -> Propose:
    """Try all bridges of the domain at once; the proposal with what was heard.

    Takes about a second if one of them is silent. A peer that does not know the feature is sent nothing. A mere
    question changes nothing; a relocation joins bridges that are apart, if both hosts are to do that.
    """
    names = bridges_of(proposal.domain)
    if not names or FEATURE not in theirs.features:
        return proposal
    moves = proposal.intent is Intent.MOVE
    if moves:  # what is there already is not taken away from now on
        await context.tunnels.going(proposal.domain.uuid, names, dialogue.peer)
    here = await deferToThread(open_bridges, names)
    try:
        tried = await _try(context, dialogue, here)
        trouble = ""
        if moves and tried.apart and agreed_mode(tried.mode, context.config.l2) is L2Mode.TUNNEL:
            tried, trouble = await _join(context, dialogue, theirs, here, tried)
            await context.tunnels.going(proposal.domain.uuid, names, dialogue.peer)
    finally:
        deferToThread(here.close)
    return evolve(proposal, source=evolve(proposal.source, heard=tried.heard.answers, tunnel_trouble=trouble))


async def _try(context: Context, dialogue: Dialogue, here: Ends) -> _Tried:
    ours = secrets.token_bytes(NONCE_BYTES)
    dialogue.send(Probe(ours.hex(), context.config.l2, here.ends))
    answer = await dialogue.receive(context.config.connect_timeout_s)
    theirs = expect(answer, Probing, dialogue.peer)
    key = probe_key(ours, bytes.fromhex(theirs.nonce))
    there = {end.name: end for end in theirs.bridges}
    worth = [end.name for end in here.ends if end.name in there and not same_bridge(end, there[end.name])]
    asked = {name: here.sockets[name] for name in worth if name in here.sockets}
    heard: Heard = await deferToThread(ask, asked, key, WAIT_S)
    return _Tried(heard, theirs.mode, tuple(_apart(asked, there, heard)))


def _apart(asked: Mapping[str, object], there: Mapping[str, BridgeEnd], heard: Heard) -> list[str]:
    """Ready at both ends, and silent."""
    return [name for name in asked if there[name].state is EndState.READY and name not in heard.answers]


async def _join(
    context: Context, dialogue: Dialogue, theirs: Hello, here: Ends, tried: _Tried
) -> tuple[_Tried, str]:
    """Make a tunnel for each bridge that is still apart, and try again; with what went wrong, if anything did.

    One at a time: two that were made at once could make a ring.
    """
    tunnels = context.tunnels
    waits = tunnels.joining.locked
    async with tunnels.joining:
        if waits:  # what was made meanwhile may do
            tried = await _try(context, dialogue, here)
        troubles = [await tunnels.join(dialogue, theirs, name) for name in tried.apart]
        if not any(map(bool, troubles)) and tried.apart:
            joined, tried = tried.apart, await _try(context, dialogue, here)
            for name in joined:
                if name in tried.heard.echoes:
                    troubles.append(f"frames went round on {name}, so it was taken away again")
                elif name in tried.apart:
                    troubles.append(f"no frame came through the tunnel of {name}, so it was taken away again")
                else:
                    continue
                await tunnels.drop(name, dialogue.peer)
    return tried, "; ".join(filter(None, troubles))
