"""Why the gate lets a host in or not, for ``relocctl peers test``: the gate decides, this puts it into words."""

from __future__ import annotations

import re
from ipaddress import ip_address
from typing import Any

from relocd.allow import forms_of
from relocd.daemon.gate import Explanation, Gate
from relocd.errors import UsageError

Fields = dict[str, Any]

MAX_HOST_CHARACTERS = 253


async def explain(gate: Gate, host: str) -> Fields:
    """The decision about each address of ``host``, a name or an address. Raises UsageError if it has none."""
    addresses = (str(ip_address(host)),) if forms_of(host) else await _addresses(gate, host)
    rows = [_row(gate, address, await gate.explain(address)) for address in addresses]
    return {
        "host": host,
        "admitted": all(row["admitted"] for row in rows),
        "addresses": rows,
    }


async def _addresses(gate: Gate, host: str) -> tuple[str, ...]:
    if not host or len(host) > MAX_HOST_CHARACTERS or not host.isprintable():
        raise UsageError(f"{host[:40]!r} is no host", hint="Give a name or an address.")
    found = await gate.addresses(host)
    if found is None:
        raise UsageError(
            f"the addresses of {host} were not found out in time",
            hint="Is the name server reachable (/etc/resolv.conf)? Or test the address that it connects from.",
        )
    if not found:
        raise UsageError(
            f"{host} has no address that this host could find",
            hint="Add it to the DNS or to /etc/hosts, or test the address that it connects from.",
        )
    return found


def _row(gate: Gate, address: str, explanation: Explanation) -> Fields:
    names = explanation.names
    return {
        "address": address,
        "admitted": explanation.admission.allowed,
        "reason": explanation.admission.reason,
        "lookup": "not needed" if not explanation.looked_up else "timeout" if names is None else "done",
        "names": [
            {
                "name": found.name,
                "confirmed": found.confirmed,
                "leads_to": list(found.leads_to),
                "pattern": gate.name_pattern(found.name) or "",
            }
            for found in names or ()
        ],
        "patterns": [{"pattern": text, "matches": what} for text, what in explanation.tried.items()],
        "next": "" if explanation.admission.allowed else _next(gate, address, explanation),
    }


def _next(gate: Gate, address: str, explanation: Explanation) -> str:
    add = f"add ^{re.escape(address)}$ to xen-relocation-hosts-allow and reload relocd"
    if explanation.looked_up and explanation.names is None:
        return f"Looking up its name took longer than xen-relocation-lookup-timeout: mend the name service, or {add}."
    for found in explanation.names or ():
        pattern = gate.name_pattern(found.name)
        if pattern and not found.confirmed:
            leads = f"leads to {', '.join(found.leads_to)}" if found.leads_to else "leads nowhere"
            return (
                f"Its name {found.name} would match {pattern}, but {leads} and not back to {address}, and so anybody "
                f"could claim it: mend the DNS or /etc/hosts, or {add}."
            )
    return f"If it should be let in, {add}. In quotes, a backslash is written twice."
