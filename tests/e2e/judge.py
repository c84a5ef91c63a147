"""Judges both hosts after a relocation: the guest, the journals, the message, and that nothing is left."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from relocd.preflight.rules import OVERHEAD_MIB
from tests.e2e.faults import GONE, HOME, MOVED, Ending
from tests.e2e.staging import Result, Stage, states
from tests.scene import GUEST_UUID
from tests.testbed.daemons import RelocdHost
from tests.testbed.memcheck import MemCheck

#: A guest that runs touches memory all the time; its resident size is read a moment apart from the reservation.
RESIDENT_SLACK_MIB = 16
OPEN_MARKS = frozenset({"begun", "undoing", "committed", "owned"})


class Judge:
    """Made before a relocation, asked after it."""

    def __init__(self, stage: Stage) -> None:
        self._stage = stage
        self._counters: MemCheck = stage.scene.stat()
        self._firewalls = [_firewall(host) for host in stage.hosts]

    def place(self) -> str:
        """Where the domain runs. There is one copy of it, and it runs, or there is none."""
        found = {place: states(host) for place, host in zip((HOME, MOVED), self._stage.hosts, strict=True)}
        places = [place for place, domains in found.items() if domains]
        assert len(places) <= 1, f"two copies: {found}"
        if not places:
            return GONE
        assert found[places[0]] == {GUEST_UUID: "running"}
        return places[0]

    def ending(self, result: Result) -> Ending:
        """What came of it, as both hosts tell it; and the guest, if it lives, is well, and nothing is left."""
        place = self.place()
        if place != GONE:
            self._guest_is_well()
        said = _message(result)
        relocation = result.outcome["relocation"]
        source, target = (_record(host, relocation) for host in self._stage.hosts)
        for record in (source, target):
            _check_record(record, moved="done" in (source.get("mark"), target.get("mark")))
        for host, firewall in zip(self._stage.hosts, self._firewalls, strict=True):
            _check_clean(host, firewall)
        return Ending(place, result.exit_code, source.get("mark", ""), target.get("mark", ""), said)

    def _guest_is_well(self) -> None:
        """The same guest, it went on, and it has found no page that is not as it should be."""
        after = self._stage.scene.wait_guest(lambda stat: stat.verified > self._counters.verified)
        assert after.follows(self._counters)
        assert after.bad == 0


def _record(host: RelocdHost, relocation: str | None) -> dict[str, Any]:
    """The journal's record of a relocation, empty if there is none; no other record is open."""
    rows = host.relocctl("history", "--limit", "5").result
    assert not [row for row in rows if row["mark"] in OPEN_MARKS], f"open on {host.host.name}: {rows}"
    return next((row for row in rows if row["relocation"] == relocation), {})


def _check_record(record: dict[str, Any], *, moved: bool) -> None:
    """A record says how it ended, and why if it failed."""
    if not record:
        return
    outcome = record["outcome"]
    assert outcome, f"no outcome: {record}"
    assert outcome["outcome"] == ("completed" if moved else "failed"), record
    assert moved or outcome["error"], f"no reason: {record}"


def _message(result: Result) -> str:
    """The message of a failure: the same in the object for programs and on stderr for people, one sentence."""
    outcome, stderr = result.outcome, result.stderr
    word = {0: "completed", 12: "unknown"}.get(result.exit_code, "failed")
    assert (outcome["outcome"], outcome["exit_code"]) == (word, result.exit_code), outcome
    if result.exit_code == 0:
        assert (outcome["error"], stderr) == (None, "")
        return ""
    text = str(outcome["error"])
    assert len(text.split()) >= 4, f"not a sentence: {text!r}"
    assert not re.search(r"Traceback|Error\(|: ?$", text), text
    assert stderr.splitlines() == [f"Error: {text}", *filter(None, [outcome["hint"]])]
    return text


def _check_clean(host: RelocdHost, firewall: str) -> None:
    domains = [*states(host)]
    host.wait_clean(keep=domains)
    assert _firewall(host) == firewall
    reserved_mib = host.relocctl("info").result["memory_reserved_mib"]
    assert 0 <= reserved_mib <= _explained_mib(host), f"{reserved_mib} MiB are reserved on {host.host.name}"


def _explained_mib(host: RelocdHost) -> int:
    """What running domains have been promised and do not use yet."""
    promised = sum(domain["memory_mib"] + OVERHEAD_MIB for domain in host.ask("list")["domains"])
    resident = sum(_resident_mib(pid) for pid, line in host.processes().items() if "qemu-system" in line)
    return max(0, promised - resident + RESIDENT_SLACK_MIB) if promised else 0


def _resident_mib(pid: int) -> int:
    with Path(f"/proc/{pid}/status").open() as status:
        return next(int(line.split()[1]) >> 10 for line in status if line.startswith("VmRSS"))


def _firewall(host: RelocdHost) -> str:
    return host.host.run(["nft", "list", "ruleset"]) + host.host.run(["iptables-legacy-save"])
