"""xm's output to the letter (Xen 3.2 to 4.4): cluster agents and monitoring plugins cut it into columns."""

from __future__ import annotations

from collections.abc import Iterable

from relocd import sxp
from relocd.cli.failures import printable
from relocd.cli.replies import Domain
from relocd.cli.xm_host import uptime_s
from relocd.model import DomainState

_LETTERS = {
    DomainState.RUNNING: "r-----",
    DomainState.PAUSED: "--p---",
    DomainState.OUTGOING: "--p---",
    DomainState.SHUTDOWN: "---s--",
    DomainState.CRASHED: "----c-",
}
"""xm's six places: running, blocked, paused, shutdown, crashed, dying."""

_STATUS = {
    DomainState.RUNNING: 2,
    DomainState.PAUSED: 1,
    DomainState.OUTGOING: 1,
    DomainState.SHUTDOWN: 0,
    DomainState.CRASHED: 5,
}
"""xend's numbers: 0 halted, 1 paused, 2 running, 5 crashed, 6 unknown. The agents take 1 and 2 for alive."""

STATES = {"all": None, "halted": 0, "paused": 1, "running": 2, "suspended": 3, "crashed": 5, "unknown": 6}
"""What ``xm list --state`` takes, and the status it selects."""


def status(domain: Domain) -> int:
    """xend's number for the domain's state."""
    return next((number for state, number in _STATUS.items() if state == domain.state), 6)


def letters(domain: Domain) -> str:
    """xend's six letters for the domain's state."""
    return next((text for state, text in _LETTERS.items() if state == domain.state), "------")


def brief(domains: Iterable[Domain]) -> str:
    """``xm list``."""
    lines = [f"{'Name':40} {'ID':>5} {'Mem':>5} {'VCPUs':>5} {'State':>10} {'Time(s)':>9}"]
    lines += [
        f"{printable(d.name):40} {d.id:5} {d.memory_mib:5} {d.vcpus:5} {letters(d):>10} {d.cpu_time_s:8.1f}"
        for d in domains
    ]
    return "\n".join(lines)


def long(domain: Domain) -> str:
    """``xm list --long``: one ``(key value)`` a line."""
    record: list[sxp.Value] = [
        "domain",
        ["domid", domain.id],
        ["uuid", domain.uuid],
        ["vcpus", domain.vcpus],
        ["online_vcpus", domain.vcpus],
        ["name", domain.name],
        ["maxmem", domain.memory_mib],
        ["memory", domain.memory_mib],
        ["cpu_time", domain.cpu_time_s],
        ["status", status(domain)],
        ["state", letters(domain)],
    ]
    if domain.start_time is not None:
        record.append(["start_time", domain.start_time])
    return broken([*record, *_devices(domain)])


def broken(record: sxp.Value) -> str:
    """An S-expression with one of its fields a line, also if all would fit on one: clients read line by line."""
    assert isinstance(record, list | tuple)
    head, *fields = record
    lines = [f"({sxp.dumps(head)}"]
    lines += [f"    {line}" for field in fields for line in sxp.pretty(field, width=76).splitlines()]
    return "\n".join([*lines, ")"])


def _devices(domain: Domain) -> Iterable[sxp.Value]:
    for vif in domain.raw.get("vifs") or []:
        pairs = [("mac", vif.get("mac")), ("bridge", vif.get("bridge")), ("model", vif.get("model"))]
        addresses = " ".join(str(address) for address in vif.get("ip") or [])
        yield _device("vif", [*pairs, ("ip", addresses)])
    for disk in domain.raw.get("disks") or []:
        scheme = "phy" if str(disk.get("path", "")).startswith("/dev/") else "file"
        mode = "r" if disk.get("readonly") else "w"
        uname = f"{scheme}:{disk.get('path')}"
        yield _device("vbd", [("uname", uname), ("dev", f"{disk.get('vdev')}:disk"), ("mode", mode)])


def _device(kind: str, pairs: Iterable[tuple[str, object]]) -> sxp.Value:
    return ["device", [kind, *([key, str(value)] for key, value in pairs if value)]]


def facts(pairs: Iterable[tuple[str, str]]) -> str:
    """``xm info``."""
    return "\n".join(f"{key:23}: {printable(value)}" for key, value in pairs)


def uptimes(domains: Iterable[Domain]) -> str:
    """``xm uptime``."""
    lines = [f"{'Name':33} {'ID':>4} Uptime "]
    lines += [f"{printable(d.name):32} {d.id:5} {_span(d)}" for d in domains]
    return "\n".join(lines)


def short_uptimes(domains: Iterable[Domain], clock: str) -> str:
    """``xm uptime --short``; ``clock`` is the time of day."""
    return "\n".join(f" {clock} up {_span(d)}, {printable(d.name)} ({d.id})" for d in domains)


def _span(domain: Domain) -> str:
    seconds = uptime_s(domain)
    if seconds is None:
        return "unknown"
    days, rest = divmod(seconds, 24 * 60 * 60)
    clock = f"{rest // 3600:2}:{rest // 60 % 60:02}:{rest % 60:02}"
    return {0: "", 1: "1 day, "}.get(days, f"{days} days, ") + clock
