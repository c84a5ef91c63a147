"""All relocations of this host, in and out: admits them, finds them, takes them up again after a restart."""

from __future__ import annotations

import hmac
import os
import socket
import time
from collections.abc import Callable
from uuid import UUID

from twisted.internet.defer import DeferredList, DeferredSemaphore, TimeoutError  # noqa: A004 - Twisted's own
from twisted.internet.threads import deferToThread
from twisted.logger import Logger

from relocd.convergence.terms import Wishes, agree
from relocd.daemon import beginnings
from relocd.daemon.background import insist
from relocd.daemon.bandwidth import Bandwidth
from relocd.daemon.calling import call, require_lane_certificate
from relocd.daemon.connect import Peer, channels_towards, expect, greet, lanes_towards
from relocd.daemon.context import Context
from relocd.daemon.dialogue import Dialogue
from relocd.daemon.facts import source_facts, stamped, target_facts
from relocd.daemon.measure import Measurements
from relocd.daemon.probing import FEATURE, bridges_of, completed, probed
from relocd.daemon.segments import Segments
from relocd.daemon.source import SourceRelocation
from relocd.daemon.steering import Controls
from relocd.daemon.target import TargetRelocation
from relocd.daemon.tunnels import Tunnels
from relocd.daemon.turns import Turns, turns
from relocd.drivers.base import DomainChanged
from relocd.errors import BadState, UsageError
from relocd.handover.machine import Failure
from relocd.handover.record import Mark, Record, Role
from relocd.handover.timeline import MomentKind
from relocd.host import bootstore, facts
from relocd.model import DomainConfig, DomainState, DomainStatus
from relocd.preflight.result import Check, Verdict, failures
from relocd.preflight.rules import check_target, needed_mib
from relocd.wire.messages import (
    Decision,
    Hello,
    Inquire,
    Intent,
    Lane,
    Propose,
    Refuse,
    Standing,
    Verdicts,
)

#: What a record alone says about a relocation that is not alive any more.
_MARK_MEANS = {
    Mark.BEGUN: Decision.UNDECIDED,
    Mark.COMMITTED: Decision.COMMITTED,
    Mark.OWNED: Decision.COMMITTED,
    Mark.UNDOING: Decision.ABORTED,
    Mark.DONE: Decision.COMMITTED,
    Mark.ARRIVED: Decision.OWNED,
    Mark.ABORTED: Decision.ABORTED,
    Mark.LOST: Decision.LOST,
}


#: Proposals that are judged at one time; others wait for their turn. Each may look at disks and ask a hypervisor.
JUDGED_AT_ONCE = 4

#: How long a stop waits for undecided relocations to be undone, in seconds.
STOP_WAIT_S = 15.0


class Relocations:
    """The register of relocations."""

    log = Logger()

    def __init__(self, context: Context) -> None:
        self.context = context
        self._sources: dict[UUID, SourceRelocation] = {}
        self._targets: dict[UUID, TargetRelocation] = {}
        self._judging = DeferredSemaphore(JUDGED_AT_ONCE)
        self._bandwidth = Bandwidth(lambda: self.context.config.host_bandwidth_bytes_s)
        self._turns = Turns(self._at_once)
        self.measurements = Measurements(context)
        self.segments = Segments(context)
        self.context.tunnels = Tunnels(context, self._moving)
        context.driver.subscribe(self._domain_changed)

    def hello(self) -> Hello:
        return self.context.hello()

    # -- out -------------------------------------------------------------------------------------------------------

    def migrate(self, domain: DomainStatus, peer: Peer, *, live: bool, wishes: Wishes) -> SourceRelocation:
        """Begin to move a domain out. Raises UsageError if it cannot be moved now, or not as it is wished,
        and DriverError if its hypervisor cannot move it like this."""
        terms = agree(self.context.config, wishes)
        self._check_movable(domain)
        if len(self._sources) >= self.context.config.max_outgoing:
            raise UsageError(
                f"{len(self._sources)} relocations leave this host already, its limit",
                hint="Wait for one to end, or raise xen-relocation-max-outgoing.",
            )
        outgoing = self.context.driver.outgoing(domain.uuid)
        outgoing.require(live=live)
        was_paused = outgoing.was_paused
        record = beginnings.outgoing(domain.config, peer, live=live, was_paused=was_paused)
        relocation = SourceRelocation(
            self.context, record, peer.host, Controls(terms, self._bandwidth, self._turns)
        )
        self._register(relocation)
        predicted = self.measurements.recent(domain.uuid, peer)
        if predicted is not None:
            relocation.note(MomentKind.PREDICTION, **predicted)
        relocation.begin()
        return relocation

    def _at_once(self) -> int:
        configured = self.context.config.outgoing_at_once
        return turns(len(os.sched_getaffinity(0))) if configured is None else configured

    def share(self) -> None:
        """The configuration was replaced: what the host may send, and how many at once, has to be shared anew."""
        self._bandwidth.share()
        self._turns.look()

    def _check_movable(self, domain: DomainStatus) -> None:
        if any(other.domain.uuid == domain.uuid for other in self._sources.values()):
            raise BadState(
                f"Domain '{domain.name}' is being relocated already.", hint="Wait for that relocation to end."
            )
        if domain.state not in (DomainState.RUNNING, DomainState.PAUSED):
            raise BadState(
                f"Domain '{domain.name}' is {domain.state.value} and cannot be relocated.",
                hint="Only running and paused domains move.",
            )

    def _register(self, relocation: SourceRelocation) -> None:
        self._sources[relocation.id] = relocation
        relocation.on_finish = self._forget_source

    def _forget_source(self, relocation: SourceRelocation) -> None:
        self._sources.pop(relocation.id, None)
        self.context.tunnels.look_soon()

    async def check(self, domain: DomainConfig, peer: Peer) -> tuple[Check, ...]:
        """Ask a peer whether it would take a domain; nothing moves, nothing is reserved."""
        timeout_s = self.context.config.connect_timeout_s
        dialogue = await call(self.context, peer)
        try:
            theirs = await greet(dialogue, self.hello(), timeout_s)
            source = await source_facts(self.context, domain)
            proposal = Propose(UUID(int=0), Intent.CHECK, True, False, 1, domain, source)
            proposal = await probed(self.context, dialogue, theirs, proposal)
            dialogue.send(stamped(proposal))
            checks = expect(await dialogue.receive(timeout_s), Verdicts, dialogue.peer).checks
            return completed(checks, domain, peer.host)
        finally:
            dialogue.close()

    def busy(self, uuid: UUID) -> bool:
        """Is a domain on its way out or in? Others must leave it alone then."""
        return any(relocation.domain.uuid == uuid for relocation in self._all())

    def _moving(self) -> frozenset[UUID]:
        """Domains on their way, out or in."""
        return frozenset(relocation.domain.uuid for relocation in self._all())

    def _all(self) -> list[SourceRelocation | TargetRelocation]:
        return [*self._sources.values(), *self._targets.values()]

    # -- in --------------------------------------------------------------------------------------------------------

    async def propose(self, proposal: Propose, hello: Hello, dialogue: Dialogue) -> None:
        """Answer a proposal: yes with a token and a reservation, or no with every reason."""
        heard_s = time.time()
        await self._judging.acquire()
        try:
            await self._judge(proposal, hello, dialogue, heard_s)
        finally:
            self._judging.release()

    async def _judge(self, proposal: Propose, hello: Hello, dialogue: Dialogue, heard_s: float) -> None:
        if dialogue.lost is not None:
            return  # gone while it waited
        known = await self._known(proposal)
        here = await target_facts(
            self.context,
            proposal.domain,
            reserved_mib=self.reserved_mib,
            arriving=lambda: {target.domain.name: target.domain.uuid for target in self._targets.values()},
            heard_s=heard_s,
            segments=self.segments.found(dialogue, hello, proposal),
        )
        checks = check_target(proposal.domain, here, proposal.source)
        if proposal.intent is Intent.CHECK:
            dialogue.send(Verdicts(checks))
            return
        failed = failures(checks)
        if known or proposal.relocation in {*self._sources, *self._targets}:
            failed = (*failed, _fail("identity", f"relocation {proposal.relocation} is known here already"))
        if failed:
            self.log.warn(
                "refused domain {name} from {peer}: {reasons}",
                name=proposal.domain.name,
                peer=dialogue.peer,
                reasons="; ".join(check.text for check in failed),
            )
            dialogue.send(Refuse(failed))
            return
        await self._accept(proposal, hello, dialogue, checks)

    async def _known(self, proposal: Propose) -> bool:
        """Was there a relocation of that id? Its record must stay: somebody may still have to ask about it."""
        if proposal.intent is Intent.CHECK:
            return False
        return await self.context.journal.find(proposal.relocation, Role.TARGET) is not None

    async def _accept(
        self, proposal: Propose, hello: Hello, dialogue: Dialogue, checks: tuple[Check, ...]
    ) -> None:
        their_lanes = require_lane_certificate(dialogue, proposal.lane_certificate)
        secure = dialogue.channel is not None
        record = beginnings.incoming(proposal, Peer(dialogue.peer, hello.port), secure=secure)
        relocation = TargetRelocation(self.context, record, self._forget_target)
        relocation.welcome.waits = FEATURE in hello.features
        # Registered before anything is awaited: from here on the promise counts for those who ask next.
        self._targets[relocation.id] = relocation
        self.log.info(
            "{id}: receiving domain {name} from {peer}",
            id=relocation.id,
            name=record.domain.name,
            peer=dialogue.peer,
        )
        needed = bootstore.missing(self.context.boot_dir, record.domain.boot_files)
        try:
            domain = record.domain
            await self.context.tunnels.coming(domain.uuid, bridges_of(domain), dialogue.peer)
            lanes = min(proposal.lanes, await lanes_towards(self.context.config, dialogue))
            channels = await self._channels(proposal, dialogue)
            await relocation.accept(dialogue, lanes, channels, needed, checks, their_lanes)
        except BaseException:
            self._targets.pop(relocation.id, None)
            raise

    async def _channels(self, proposal: Propose, dialogue: Dialogue) -> int:
        """How many of the channels that the source's hypervisor offers ours takes: it must be the same one."""
        ours = self.context.driver.facts()
        same = ours.version == proposal.source.hypervisor_version
        most = min(proposal.channels, ours.channels_max) if same else 0
        return await channels_towards(self.context.config, dialogue, most)

    def _forget_target(self, relocation: TargetRelocation) -> None:
        self._targets.pop(relocation.id, None)
        self.context.tunnels.look_soon()
        in_use = [f.sha256 for status in self.context.driver.list() for f in status.config.boot_files]
        limit = self.context.config.boot_store_limit_bytes
        trimming = deferToThread(bootstore.trim, self.context.boot_dir, in_use, limit)
        trimming.addErrback(
            lambda failure: self.log.failure("trimming the boot store failed", failure=failure)
        )

    def reserved_mib(self) -> int:
        """Memory promised and not yet used: by domains that exist, and by arrivals that have no process yet."""
        domains = self.context.driver.list()
        known = {status.uuid for status in domains}
        coming = [t.domain for t in self._targets.values() if t.domain.uuid not in known]
        return facts.promised_mib(domains) + sum(map(needed_mib, coming))

    def lane_taker(self, lane: Lane, peer: str) -> Callable[[socket.socket], None] | None:
        """Who takes this lane of the host ``peer``, or None if nobody waits for it.

        A wrong token and a host that is not the one of the dialogue look the same.
        """
        relocation = self._targets.get(lane.relocation)
        if relocation is None or not relocation.wants_lane(lane.number, lane.token, peer):
            return None
        target = relocation
        return lambda sock: target.take_lane(lane.number, sock)

    # -- questions -------------------------------------------------------------------------------------------------

    async def inquire(self, question: Inquire, hello: Hello, dialogue: Dialogue) -> None:
        """A peer asks what became of a relocation; a live one goes on over this connection."""
        for register in (self._sources, self._targets):
            relocation = register.get(question.relocation)
            if relocation is not None and relocation.token_matches(question.token):
                relocation.check_secure(dialogue)
                dialogue.send(Standing(question.relocation, relocation.standing()))
                relocation.attach(dialogue)
                return
        dialogue.send(Standing(question.relocation, await self._remembered(question)))

    async def _remembered(self, question: Inquire) -> Decision:
        for role in Role:
            record = await self.context.journal.find(question.relocation, role)
            if record is not None and hmac.compare_digest(record.token, question.token):
                return _MARK_MEANS[record.mark]
        return Decision.UNHEARD

    # -- life of the daemon ----------------------------------------------------------------------------------------

    async def recover(self) -> None:
        """Take up what a former daemon left open."""
        for record in await self.context.journal.open_records():
            self.log.warn(
                "{id}: found open ({role}, {mark}), domain {name}",
                id=record.relocation,
                role=record.role.value,
                mark=record.mark.value,
                name=record.domain.name,
            )
            await self._take_up(record)
        for domain in self.context.driver.list():
            await self._look_after(domain)

    async def _look_after(self, domain: DomainStatus) -> None:
        """A domain that no open record speaks of: the journal was moved away or lost."""
        if self.busy(domain.uuid):
            return
        if domain.state is DomainState.RUNNING:
            # One that runs is this host's own, whatever it was being moved for; there is nothing to do for most.
            outgoing = self.context.driver.outgoing(domain.uuid)
            await insist(self.context.reactor, outgoing.cancel, f"taking domain {domain.name} back")
        elif domain in self.orphans():
            self.log.critical(
                "domain {name} is here, {state}, and the journal knows of no relocation: it is kept as it is until "
                "'relocctl resolve {name}' decides",
                name=domain.name,
                state=domain.state.value,
            )

    async def _take_up(self, record: Record) -> None:
        known = await self.context.journal.count_moments(record.relocation, record.role)
        if record.role is Role.SOURCE:
            controls = Controls(agree(self.context.config, Wishes()), self._bandwidth, self._turns)
            source = SourceRelocation(self.context, record, record.peer_host, controls)
            self._register(source)
            source.timeline.go_on(known)
            source.recover()
        else:
            target = TargetRelocation(self.context, record, self._forget_target)
            self._targets[target.id] = target
            target.timeline.go_on(known)
            target.recover()

    async def stop(self) -> None:
        """End what is not decided: those domains stay where they are. The rest is seen through at the next start."""
        self.measurements.stop()
        why = Failure("cancelled", "relocd is being stopped", "Start it again and repeat the relocation.")
        ending = [relocation.over for relocation in self._all() if relocation.cancel(why)]
        try:
            await DeferredList(ending, consumeErrors=True).addTimeout(STOP_WAIT_S, self.context.reactor)
        except TimeoutError:
            self.log.error("not everything could be undone in time; the next start goes on with it")
        for relocation in self._all():
            relocation.halt()

    def _domain_changed(self, change: DomainChanged) -> None:
        if change.state is not None:
            return
        self.context.tunnels.look_soon()
        for relocation in self._all():
            if relocation.domain.uuid == change.uuid:
                relocation.domain_gone(change.reason)

    def under_way(self) -> list[SourceRelocation | TargetRelocation]:
        """Those that have not ended, for people who ask."""
        return self._all()

    def orphans(self) -> list[DomainStatus]:
        """Copies whose relocation this journal does not know: they neither run nor go until an operator decides."""
        on_their_way = (DomainState.INCOMING, DomainState.OUTGOING)
        domains = self.context.driver.list()
        return [domain for domain in domains if domain.state in on_their_way and not self.busy(domain.uuid)]

    def find(self, reference: str) -> SourceRelocation | TargetRelocation:
        """The relocation under way of that id, or of the domain of that name or UUID. Raises UsageError."""
        for relocation in self._all():
            if reference in (str(relocation.id), relocation.domain.name, str(relocation.domain.uuid)):
                return relocation
        raise UsageError(
            f"No relocation '{reference}' is under way on this host.",
            hint="'relocctl status' shows those that are, 'relocctl history' those that have ended.",
        )


def _fail(name: str, text: str) -> Check:
    return Check(name, Verdict.FAIL, text)
