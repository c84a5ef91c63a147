"""The host's packet filter: looked at or, if the configuration says so, kept open for the allowed peers alone."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from twisted.internet.defer import DeferredList, DeferredLock, ensureDeferred
from twisted.internet.task import LoopingCall
from twisted.logger import Logger

from relocd.config.model import FirewallMode
from relocd.daemon.background import background
from relocd.daemon.context import Context
from relocd.daemon.lookup import Resolver
from relocd.drivers.worker import Worker
from relocd.errors import BadState, FirewallError
from relocd.firewall import report
from relocd.firewall.peers import Reach, reach_of
from relocd.firewall.plan import Wanted, own_name
from relocd.firewall.ruleset import Outcome, Verdict
from relocd.net import netfilter
from relocd.net.names import instance_tag

Fields = dict[str, Any]

#: How often names are resolved anew, and rules that somebody removed are put back, in seconds.
INTERVAL_S = 60.0

#: Names looked up at once; peers that connect need lookups, too.
LOOKUPS_AT_ONCE = 4


class Firewall:
    """Everything about the packet filter is done one after the other, in a thread of its own."""

    log = Logger()

    def __init__(self, context: Context, resolver: Resolver) -> None:
        self._context = context
        self._resolver = resolver
        self._name = own_name(instance_tag(str(context.run_dir)))
        self._marker: Path = context.state_dir / "firewall"
        self._worker = Worker("firewall")
        self._lock = DeferredLock()
        self._addresses: dict[str, tuple[str, ...]] = {}
        self._reaches: dict[str, Reach] = {}
        self._applied: tuple[Wanted, str] | None = None
        self._told: set[str] = set()
        self._loop = LoopingCall(lambda: background(self._tend(), "looking after the firewall"))

    async def start(self) -> None:
        """Put our rules in place before the doors open, or remove those that a crash left. Errors are told only."""
        self._loop.clock = self._context.reactor
        await self._settle()

    def look(self) -> None:
        """Tell in the log whether the peers get in, if that is wanted; returns at once."""
        if self._mode is FirewallMode.CHECK:
            background(self._tell_log(), "looking at the firewall")

    def reload(self) -> None:
        """The configuration has changed."""
        self._told.clear()
        background(self._settle(), "the firewall").addCallback(lambda _: self.look())

    async def stop(self) -> None:
        """Leave nothing behind."""
        if self._loop.running:
            self._loop.stop()
        await self._lock.run(lambda: ensureDeferred(self._retreat()))
        self._worker.stop()

    async def remove(self) -> Fields:
        """Remove what an earlier daemon left. Raises BadState while it is wanted."""
        if self._mode is FirewallMode.MANAGE:
            raise BadState(
                "relocd keeps these rules as (xen-relocation-firewall manage) says.",
                hint="Set it to off or check and reload relocd: that removes them.",
            )
        found = await self._worker.run(netfilter.remove, self._name)
        self._marker.unlink(missing_ok=True)
        return {"name": self._name, "removed": found}

    async def tell(self) -> Fields:
        """Whether the allowed peers reach the port, and what to do if not. Raises FirewallError."""
        port = self._context.port
        reaches = await self._look_up()
        work = _Look(port, reaches, dict(self._addresses))
        filters, findings, open_to_all = await self._worker.run(work.run)
        told = {
            "mode": self._mode.value,
            "name": self._name,
            "in_place": self._applied is not None,
            "port": port,
            "flavours": filters.flavours,
            "nft": filters.nft_trouble or "ok",
            "open_to_all": open_to_all,
            "peers": [self._told_finding(finding) for finding in findings],
        }
        if not port:
            return told | {
                "verdict": "closed",
                "because": "relocd does not listen: (xen-relocation-server no)",
                "next": "",
            }
        verdict = _trusted(filters, report.worst(finding.verdict for finding in findings))
        if not any(finding.networks for finding in findings):
            verdict = Verdict(
                Outcome.OPEN, "xen-relocation-hosts-allow names no other host that has an address"
            )
        step = self._next_step(verdict)
        return told | {"verdict": verdict.outcome.value, "because": verdict.because, "next": step}

    @property
    def _mode(self) -> FirewallMode:
        return self._context.config.firewall

    async def _settle(self) -> None:
        managed = self._mode is FirewallMode.MANAGE and bool(self._context.config.relocation_server)
        if managed:
            await self._tend()
            if not self._loop.running:
                self._loop.start(INTERVAL_S, now=False)
            return
        if self._loop.running:
            self._loop.stop()
        await self._lock.run(lambda: ensureDeferred(self._retreat()))

    async def _tend(self) -> None:
        await self._lock.run(lambda: ensureDeferred(self._apply()))

    async def _apply(self) -> None:
        reaches = await self._look_up()
        port = self._context.port or self._context.config.relocation_port
        wanted = report.wanted_for(self._name, port, reaches, self._addresses)
        self._warn_open(reaches)
        self._warn_unknown(reaches)
        self._marker.touch()  # before the rules: a crash in between leaves something to look for
        try:
            changed, trace, findings = await self._worker.run(
                _Keep(wanted, self._applied, reaches, dict(self._addresses)).run
            )
        except FirewallError as error:
            self._tell_once(self.log.error, f"the firewall is not as it should be: {error} {error.hint}")
            return
        self._applied = (wanted, trace)
        if changed:
            self._told.clear()
            whom = "everybody" if wanted.everybody else ", ".join(map(str, wanted.networks)) or "nobody"
            self.log.info("firewall: port {port} is open for {whom:.200}", port=port, whom=whom)
        for finding in findings:
            self._tell_finding(finding)

    async def _retreat(self) -> None:
        self._applied = None
        if not self._marker.exists():
            return
        try:
            await self._worker.run(netfilter.remove, self._name)
        except FirewallError as error:
            self.log.error("the firewall rules {name} stay: {error}", name=self._name, error=error)
        else:
            self._marker.unlink(missing_ok=True)

    async def _look_up(self) -> list[Reach]:
        """The patterns, with their names looked up; a name that cannot be asked for now keeps its addresses."""
        reaches: dict[str, Reach] = {}  # of its own: whoever asks meanwhile may ask for another list
        for pattern in dict.fromkeys(self._context.config.hosts_allow):
            if pattern not in self._reaches:
                self._reaches[pattern] = await self._worker.run(reach_of, pattern)
            reaches[pattern] = self._reaches[pattern]
        self._reaches = reaches
        names = sorted({name for reach in reaches.values() for name in reach.names})
        for first in range(0, len(names), LOOKUPS_AT_ONCE):
            together = names[first : first + LOOKUPS_AT_ONCE]
            answers = await DeferredList(
                [ensureDeferred(self._resolver.addresses(name)) for name in together], consumeErrors=True
            )
            for name, (_, found) in zip(together, answers, strict=True):
                if isinstance(found, tuple) and (found or name not in self._addresses):
                    self._addresses[name] = found
        return list(reaches.values())

    async def _tell_log(self) -> None:
        try:
            told = await self._lock.run(lambda: ensureDeferred(self.tell()))
        except FirewallError as error:
            self.log.info("firewall: not looked at: {error}", error=error)
            return
        outcome = told["verdict"]
        if outcome == Outcome.OPEN:
            text = told["because"] or f"the allowed peers reach port {told['port']}"
            self.log.info("firewall: {text}", text=text)
            return
        say = self.log.warn if outcome == Outcome.BLOCKED else self.log.info
        say(
            "firewall: {verdict}: {because}. {next}",
            **{key: told[key] for key in ("verdict", "because", "next")},
        )

    def _warn_open(self, reaches: Sequence[Reach]) -> None:
        for reach in reaches:
            if reach.everybody and reach.reason:
                text = f"firewall: the port is open for everybody for the pattern {reach.pattern!r}: {reach.reason}"
                self._tell_once(self.log.warn, f"{text}; relocd itself still lets in nobody else")

    def _warn_unknown(self, reaches: Sequence[Reach]) -> None:
        for name in sorted({name for reach in reaches for name in reach.names}):
            if not self._addresses.get(name):
                text = f"firewall: {name} has no address that this host could find, so it cannot get in"
                self._tell_once(self.log.warn, text)

    def _tell_finding(self, finding: report.Finding) -> None:
        if finding.verdict.outcome is Outcome.OPEN:
            return
        text = f"firewall: the rules that let in {finding.reach.pattern!r} have no effect: {finding.verdict.because}"
        blocked = finding.verdict.outcome is Outcome.BLOCKED
        if not blocked:
            text = (
                f"firewall: whether {finding.reach.pattern!r} gets in is not known: {finding.verdict.because}"
            )
        self._tell_once(self.log.error if blocked else self.log.info, text)

    def _tell_once(self, say: Callable[..., None], text: str) -> None:
        if text not in self._told:
            self._told.add(text)
            say("{text}", text=text)

    def _told_finding(self, finding: report.Finding) -> Fields:
        reach = finding.reach
        return {
            "pattern": reach.pattern,
            "networks": [str(network) for network in finding.networks],
            "names": {name: list(self._addresses.get(name, ())) for name in reach.names},
            "everybody": reach.everybody,
            "reason": reach.reason,
            "verdict": finding.verdict.outcome.value,
            "because": finding.verdict.because,
        }

    def _next_step(self, verdict: Verdict) -> str:
        if verdict.outcome is Outcome.UNDECIDED:
            return "Find out from the peer: 'relocctl check DOMAIN HOST' there connects to this port."
        if verdict.outcome is Outcome.OPEN:
            return ""
        if self._mode is FirewallMode.MANAGE:
            return "Take that rule away or except the port from it: relocd's rules cannot override it."
        return "Let the peers in there, or set (xen-relocation-firewall manage) and reload relocd."


class _Look:
    """Reading and judging, for the thread."""

    def __init__(self, port: int, reaches: Sequence[Reach], addresses: report.Addresses) -> None:
        self._port, self._reaches, self._addresses = port, reaches, addresses

    def run(self) -> tuple[netfilter.Filters, list[report.Finding], bool]:
        filters = netfilter.read()
        findings = report.examine(filters.chains, self._port, self._reaches, self._addresses)
        return filters, findings, report.is_open_to_all(filters.chains, self._port)


class _Keep:
    """Applying what is wanted unless it is in force as it was left, for the thread."""

    def __init__(
        self,
        wanted: Wanted,
        applied: tuple[Wanted, str] | None,
        reaches: Sequence[Reach],
        addresses: report.Addresses,
    ) -> None:
        self._wanted, self._applied = wanted, applied
        self._reaches, self._addresses = reaches, addresses

    def run(self) -> tuple[bool, str, list[report.Finding]]:
        filters, wanted = netfilter.read(), self._wanted
        changed = self._applied != (wanted, filters.trace(wanted.name))
        if changed:
            filters = netfilter.apply(wanted)
        findings = report.examine(filters.chains, wanted.port, self._reaches, self._addresses)
        return changed, filters.trace(wanted.name), findings


def _trusted(filters: netfilter.Filters, verdict: Verdict) -> Verdict:
    """Without nft its rules cannot be seen, so nothing is known to be open."""
    if filters.listing is None and verdict.outcome is Outcome.OPEN:
        return Verdict(
            Outcome.UNDECIDED, f"rules of nftables, if there are any, cannot be seen: {filters.nft_trouble}"
        )
    return verdict
