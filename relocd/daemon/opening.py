"""How a source gets a target's promise: the greeting, the proposal and its answer; then the lanes."""

from __future__ import annotations

import socket
from collections.abc import Callable
from typing import Any
from uuid import UUID

from attrs import evolve, frozen

from relocd.carrier.control import LaneSecurity
from relocd.daemon.calling import call, require_lane_certificate
from relocd.daemon.connect import Peer, channels_towards, expect, greet, lanes_towards, open_lane
from relocd.daemon.context import Context
from relocd.daemon.dialogue import Dialogue
from relocd.daemon.facts import stamped
from relocd.daemon.probing import completed, probed
from relocd.errors import Cancelled, ProtocolError, Refused
from relocd.preflight.result import Check, failures
from relocd.tls.authority import new_lane_pair
from relocd.wire.messages import Accept, Lane, Propose, Refuse
from relocd.wire.tokens import lane_token


@frozen
class Promise:
    """A target that has a place: how it is spoken to, and where it answers questions later.

    ``security`` is what the lanes need if the dialogue is over TLS.
    """

    dialogue: Dialogue
    accept: Accept
    questions_to: Peer
    security: LaneSecurity | None = None


async def ask_for_place(
    context: Context,
    peer: Peer,
    proposal: Propose,
    wanted: Callable[[], bool],
    on_phase: Callable[[str], None],
    on_checks: Callable[[tuple[Check, ...]], None],
    limit_bytes_s: int,
) -> Promise:
    """Connect and propose, with as many lanes as this host would like, and, of the channels proposed, as many as are
    worth while under such a limit of bandwidth.

    Raises Refused with all reasons, or another RelocdError; no connection is left then.
    ``wanted`` is asked between the steps: the relocation may have ended meanwhile, and is then not proposed.
    """
    timeout_s = context.config.connect_timeout_s
    on_phase("connect")
    dialogue = await call(context, peer)
    try:
        pair = new_lane_pair() if dialogue.channel is not None else None
        if pair is not None:
            proposal = evolve(proposal, lane_certificate=pair.der().hex())
        _require(wanted())
        theirs = await greet(dialogue, context.hello(), timeout_s)
        channels = await channels_towards(context.config, dialogue, proposal.channels, limit_bytes_s)
        proposal = evolve(proposal, lanes=await lanes_towards(context.config, dialogue), channels=channels)
        _require(wanted())
        on_phase("preflight")
        proposal = await probed(context, dialogue, theirs, proposal)
        _require(wanted())
        answer = await _propose(dialogue, proposal, timeout_s)
        if isinstance(answer, Refuse):
            on_checks(answer.checks)
            raise _refusal(answer, by=peer.host)
        on_checks(completed(answer.checks, proposal.domain, peer.host))
        their_lanes = require_lane_certificate(dialogue, answer.lane_certificate)
    except BaseException:
        dialogue.close()
        raise
    security = LaneSecurity(pair.certificate, pair.key, their_lanes.hex()) if pair is not None else None
    return Promise(dialogue, answer, Peer(dialogue.peer, theirs.port or peer.port), security)


def _require(wanted: bool) -> None:
    if not wanted:
        raise Cancelled("the relocation has ended before it was proposed")


async def _propose(dialogue: Dialogue, proposal: Propose, timeout_s: float) -> Accept | Refuse:
    dialogue.send(stamped(proposal))
    answer = await dialogue.receive(timeout_s)
    if isinstance(answer, Refuse):
        return answer
    accept = expect(answer, Accept, dialogue.peer)
    if accept.channels:
        fits = accept.channels <= proposal.channels and accept.lanes == 1 + accept.channels
    else:
        fits = accept.lanes <= proposal.lanes
    if accept.relocation != proposal.relocation or not fits:
        raise ProtocolError(f"{dialogue.peer} accepted something else than was proposed")
    return accept


def _refusal(answer: Refuse, *, by: str) -> Refused:
    failed = failures(answer.checks)
    return Refused(
        tuple((check.name, check.text) for check in failed),
        by=by,
        hint=" ".join(check.remedy for check in failed if check.remedy),
    )


async def open_lanes(
    reactor: Any, peer: Peer, relocation: UUID, promise: Promise, timeout_s: float
) -> list[socket.socket]:
    """Connect all lanes that the target waits for; none is left open if one fails."""
    accept = promise.accept
    lanes: list[socket.socket] = []
    try:
        for number in range(accept.lanes):
            token = lane_token(accept.token, number) if promise.security else accept.token
            lane = Lane(relocation, token, number)
            lanes.append(await open_lane(reactor, peer, lane, timeout_s))
    except BaseException:
        for sock in lanes:
            sock.close()
        raise
    return lanes
