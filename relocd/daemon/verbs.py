"""What relocctl and xm can ask for: one function a verb, one table."""

from __future__ import annotations

import math
import secrets
from collections.abc import Awaitable, Callable
from typing import Any
from uuid import UUID, uuid4

from attrs import define, frozen

from relocd import __version__
from relocd.convergence.terms import Wishes
from relocd.daemon.connect import Peer
from relocd.daemon.context import Context
from relocd.daemon.explain import explain
from relocd.daemon.firewall import Firewall
from relocd.daemon.gate import Gate
from relocd.daemon.relocations import Relocations
from relocd.daemon.resolve import parse_choice, resolve
from relocd.daemon.status import here, moment_object, orphan_object, record_object, status_object
from relocd.domain.file import parse_domain_file
from relocd.errors import BadState, UnknownDomain, UsageError
from relocd.handover.machine import Failure
from relocd.handover.record import Record
from relocd.host import facts
from relocd.model import DomainStatus
from relocd.preflight.result import failures

Fields = dict[str, Any]

#: Records that ``history`` shows unless asked for more, and at most.
HISTORY_DEFAULT, HISTORY_MAX = 20, 10_000


@define
class Desk:
    """What the verbs work with."""

    context: Context
    relocations: Relocations
    gate: Gate
    firewall: Firewall


@frozen
class Request:
    """One request. ``emit`` sends an object before the result; ``on_close`` registers for the client's departure."""

    verb: str
    fields: Fields
    emit: Callable[[Fields], None]
    on_close: Callable[[Callable[[], None]], None]

    def text(self, key: str, default: str | None = None) -> str:
        value = self.fields.get(key, default)
        if not isinstance(value, str):
            raise UsageError(f"'{self.verb}' needs '{key}', a text")
        return value

    def flag(self, key: str) -> bool:
        value = self.fields.get(key, False)
        if not isinstance(value, bool):
            raise UsageError(f"'{key}' must be true or false")
        return value

    def port(self, default: int) -> int:
        value = self.fields.get("port") or default
        if not isinstance(value, int) or isinstance(value, bool) or not 0 < value < 65536:
            raise UsageError("'port' must be a number from 1 to 65535")
        return value

    def number(self, key: str) -> float | None:
        """A number, or None if the field is not there."""
        value = self.fields.get(key)
        if value is None:
            return None
        if not isinstance(value, int | float) or isinstance(value, bool) or not abs(value) < math.inf:
            raise UsageError(f"'{key}' must be a number")
        return value

    def whole(self, key: str) -> int | None:
        """A whole number, or None if the field is not there."""
        value = self.number(key)
        if value is not None and not isinstance(value, int):
            raise UsageError(f"'{key}' must be a whole number")
        return value

    def wishes(self) -> Wishes:
        """What a relocation may take, as far as it is asked for."""
        return Wishes(
            max_bandwidth_bytes_s=self.whole("max_bandwidth_bytes_s"),
            max_downtime_ms=self.whole("max_downtime_ms"),
            max_duration_s=self.number("max_duration_s"),
        )


async def _list(desk: Desk, request: Request) -> Fields:
    domains = list(desk.context.driver.list())
    if request.fields.get("domain") is not None:
        domains = [_find(desk, request)]
    return {"domains": [domain_object(domain) for domain in domains]}


async def _create(desk: Desk, request: Request) -> Fields:
    overrides = request.fields.get("set") or {}
    if not isinstance(overrides, dict) or not all(isinstance(value, str) for value in overrides.values()):
        raise UsageError("'set' must be an object of texts")
    parsed = parse_domain_file(
        request.text("config"),
        source=request.text("source", "<config>"),
        overrides=overrides,
        new_uuid=uuid4,
        new_mac=_new_mac,
    )
    _check_free(desk, parsed.config.name, parsed.config.uuid)
    status = await desk.context.driver.create(parsed.config, paused=request.flag("paused"))
    return {"domain": domain_object(status), "warnings": [str(warning) for warning in parsed.warnings]}


def _check_free(desk: Desk, name: str, uuid: UUID) -> None:
    for other in desk.context.driver.list():
        if other.name == name or other.uuid == uuid:
            raise BadState(
                f"Domain '{other.name}' exists already with ID '{other.id}' (UUID {other.uuid}).",
                hint="Give the new one another name and UUID, or destroy the old one first.",
            )


async def _destroy(desk: Desk, request: Request) -> Fields:
    return await _act(desk, request, desk.context.driver.destroy)


async def _pause(desk: Desk, request: Request) -> Fields:
    return await _act(desk, request, desk.context.driver.pause)


async def _unpause(desk: Desk, request: Request) -> Fields:
    return await _act(desk, request, desk.context.driver.unpause)


async def _shutdown(desk: Desk, request: Request) -> Fields:
    return await _act(desk, request, desk.context.driver.shutdown)


async def _reboot(desk: Desk, request: Request) -> Fields:
    return await _act(desk, request, desk.context.driver.reboot)


async def _act(desk: Desk, request: Request, action: Callable[[UUID], Awaitable[None]]) -> Fields:
    domain = _find(desk, request)
    if desk.relocations.busy(domain.uuid):
        raise BadState(
            f"Domain '{domain.name}' is being relocated; '{request.verb}' has to wait.",
            hint=f"Wait for its end, or end it with 'relocctl cancel {domain.name}' as long as that is possible.",
        )
    await action(domain.uuid)
    desk.context.tunnels.look_soon()
    now = desk.context.driver.get(domain.uuid)
    return {"domain": domain_object(now or domain)}


async def _console(desk: Desk, request: Request) -> Fields:
    domain = _find(desk, request)
    path = desk.context.driver.console_path(domain.uuid)
    return {"path": str(path), "log": str(desk.context.log_dir / f"console-{domain.uuid}.log")}


async def _check(desk: Desk, request: Request) -> Fields:
    domain = _find(desk, request)
    peer = Peer(request.text("host"), request.port(desk.context.config.relocation_port))
    checks = await desk.relocations.check(domain.config, peer)
    rows = [{"check": c.name, "verdict": c.verdict.value, "text": c.text, "remedy": c.remedy} for c in checks]
    told = {"passed": not failures(checks), "checks": rows}
    return told | (await _forecast(desk, domain, peer) if request.flag("measure") else {})


async def _forecast(desk: Desk, domain: DomainStatus, peer: Peer) -> Fields:
    forecast = await desk.relocations.measurements.forecast(domain, peer)
    return {"prediction": forecast.prediction, "no_prediction": forecast.reason}


async def _migrate(desk: Desk, request: Request) -> Fields:
    await desk.context.driver.refresh()  # whether it is paused is part of what is proposed
    domain = _find(desk, request)
    peer = Peer(request.text("host"), request.port(desk.context.config.relocation_port))
    relocation = desk.relocations.migrate(domain, peer, live=request.flag("live"), wishes=request.wishes())
    stop_watching = relocation.report.watch(request.emit)
    request.on_close(stop_watching)
    ending = await relocation.done
    stop_watching()
    if ending.exit_code == 0:
        return ending.outcome
    return {
        **ending.outcome,
        "event": "error",
        "message": ending.outcome["error"],
        "exit_code": ending.exit_code,
    }


async def _cancel(desk: Desk, request: Request) -> Fields:
    relocation = desk.relocations.find(request.text("relocation"))
    why = Failure("cancelled", "cancelled by an operator", "The domain stays on the source, as it was.")
    if not relocation.cancel(why):
        raise BadState(
            f"Relocation {relocation.id} of '{relocation.domain.name}' cannot be cancelled any more: "
            f"{here(relocation.record)}.",
            hint="'relocctl status' shows how far it is.",
        )
    await relocation.over
    return {**record_object(relocation.record), **relocation.record.outcome}


async def _resolve(desk: Desk, request: Request) -> Fields:
    return await resolve(
        desk.relocations,
        request.text("relocation"),
        resume_here=parse_choice(request.flag("resume_here"), request.flag("discard")),
        sure=request.flag("sure"),
    )


async def _status(desk: Desk, _: Request) -> Fields:
    under_way = [status_object(relocation) for relocation in desk.relocations.under_way()]
    orphans = [orphan_object(domain) for domain in desk.relocations.orphans()]
    return {"relocations": under_way + orphans}


async def _history(desk: Desk, request: Request) -> Fields:
    limit = request.fields.get("limit") or HISTORY_DEFAULT
    if not isinstance(limit, int) or not 0 < limit <= HISTORY_MAX:
        raise UsageError(f"'limit' must be a number from 1 to {HISTORY_MAX}")
    wanted = request.fields.get("relocation")
    if wanted is not None and not isinstance(wanted, str):
        raise UsageError("'relocation' must be a relocation's id or a domain's name or UUID")
    records = await desk.context.journal.history(limit, wanted)
    if wanted is not None and not records:
        raise UsageError(
            f"The history of this host knows no relocation or domain '{wanted}'.",
            hint="'relocctl history' shows the latest; the other host has a history of its own.",
        )
    return {"relocations": [await _told(desk, record, wanted) for record in records]}


async def _told(desk: Desk, record: Record, wanted: str | None) -> Fields:
    """With its timeline if this relocation was asked for by its id."""
    told = record_object(record)
    if wanted == str(record.relocation):
        moments = await desk.context.journal.timeline(record.relocation, record.role)
        told["timeline"] = [moment_object(moment) for moment in moments]
    return told


async def _info(desk: Desk, request: Request) -> Fields:
    context = desk.context
    hypervisor = context.driver.facts()
    return {
        "version": __version__,
        "host": facts.host_name(),
        "port": context.port,
        "address": context.config.relocation_address,
        "driver": hypervisor.driver,
        "driver_version": hypervisor.version,
        "accelerators": sorted(accelerator.value for accelerator in hypervisor.accelerators),
        "memory_total_mib": facts.memory_total_mib(),
        "memory_free_mib": facts.memory_available_mib(),
        "memory_reserved_mib": desk.relocations.reserved_mib(),
        "domains": len(context.driver.list()),
        "tls": context.trust.describe(),
        "tunnels": context.tunnels.describe(),
        "config_file": str(context.config_file),
        "state_dir": str(context.state_dir),
        "run_dir": str(context.run_dir),
    }


async def _firewall(desk: Desk, request: Request) -> Fields:
    return await (desk.firewall.remove() if request.flag("remove") else desk.firewall.tell())


async def _peers_test(desk: Desk, request: Request) -> Fields:
    return await explain(desk.gate, request.text("host"))


VERBS: dict[str, Callable[[Desk, Request], Awaitable[Fields]]] = {
    "list": _list,
    "create": _create,
    "destroy": _destroy,
    "pause": _pause,
    "unpause": _unpause,
    "shutdown": _shutdown,
    "reboot": _reboot,
    "console": _console,
    "check": _check,
    "migrate": _migrate,
    "cancel": _cancel,
    "resolve": _resolve,
    "status": _status,
    "history": _history,
    "info": _info,
    "firewall": _firewall,
    "peers-test": _peers_test,
}


def domain_object(status: DomainStatus) -> Fields:
    """A domain as docs/control.md describes it."""
    config = status.config
    return {
        "name": status.name,
        "id": status.id,
        "uuid": str(status.uuid),
        "state": status.state.value,
        "memory_mib": config.memory_mib,
        "vcpus": config.vcpus,
        "cpu_time_s": round(status.cpu_time_s, 1),
        "hypervisor": config.hypervisor,
        "machine": config.machine,
        "cpu": config.cpu,
        "accelerator": config.accelerator.value if config.accelerator else "",
        "vifs": [
            {"mac": vif.mac, "bridge": vif.bridge, "model": vif.model, "ip": list(vif.ip)}
            for vif in config.vifs
        ],
        "disks": [
            {"path": disk.path, "vdev": disk.vdev, "format": disk.format, "readonly": disk.readonly}
            for disk in config.disks
        ],
    }


def _find(desk: Desk, request: Request) -> DomainStatus:
    """The domain that a name, an id or a UUID means, tried in this order."""
    reference = request.text("domain")
    domains = desk.context.driver.list()
    for matches in (
        lambda d: d.name == reference,
        lambda d: str(d.id) == reference,
        lambda d: str(d.uuid) == reference.lower(),
    ):
        for domain in domains:
            if matches(domain):
                return domain
    raise UnknownDomain(reference)


def _new_mac() -> str:
    """A fresh address below Xen's prefix 00:16:3e, in its half for local use (next byte at most 0x7f)."""
    tail = secrets.token_bytes(3)
    return ":".join(f"{byte:02x}" for byte in (0x00, 0x16, 0x3E, tail[0] & 0x7F, tail[1], tail[2]))
