"""What ``iptables-save`` and its relatives print, as chains."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Collection, Iterator, Sequence
from ipaddress import ip_network

from attrs import frozen

from relocd.firewall.ruleset import (
    Act,
    Chain,
    Condition,
    Hook,
    Packet,
    Rule,
    Truth,
    negated,
    truth_of_any,
    within,
)

#: Tables in the order in which the kernel asks them (priorities of netfilter_ipv4.h).
_PRIORITIES = {"raw": -300, "mangle": -150, "nat": -100, "filter": 0, "security": 50}
_HOOKS = {"PREROUTING": "prerouting", "INPUT": "input"}
_ACTS = {"ACCEPT": Act.ACCEPT, "DROP": Act.DROP, "REJECT": Act.DROP, "RETURN": Act.RETURN}
_WITHOUT_EFFECT = frozenset(
    {
        "LOG", "NFLOG", "ULOG", "AUDIT", "TRACE", "MARK", "CONNMARK", "SECMARK", "CONNSECMARK", "CLASSIFY", "CT",
        "NOTRACK", "CHECKSUM", "TCPMSS", "TOS", "DSCP", "TTL", "HL", "SET",
    }
)  # fmt: skip
_OF_TARGETS = ("--reject-with", "--comment", "-m")  # options that are no condition
_SYN_FLAGS = frozenset({"SYN"})

_Judge = Callable[[Packet, Sequence[str]], Truth]


@frozen
class _Option:
    name: str
    values: tuple[str, ...]
    negated: bool


def chains_of_save(text: str, *, program: str, family: str) -> list[Chain]:
    """The chains; ``family`` is ip or ip6, ``program`` a name for people."""
    found: list[Chain] = []
    table = ""
    policies: dict[str, str] = {}
    rules: dict[str, list[Rule]] = {}
    for line in text.splitlines():
        if line.startswith("*"):
            table, policies, rules = line[1:].strip(), {}, {}
        elif line.startswith(":"):
            name, policy, *_ = line[1:].split()
            policies[name] = policy
        elif line.startswith("-A "):
            rules.setdefault(line.split()[1], []).append(_rule(line, policies))
        elif line.strip() == "COMMIT":
            found += [
                Chain(program, family, table, name, tuple(rules.get(name, ())), _hook(table, name, policy))
                for name, policy in policies.items()
            ]
    return found


def is_in_force(text: str) -> bool:
    """Whether there is a rule, or a policy that is not ACCEPT. Empty tables do nothing."""
    lines = text.splitlines()
    return any(
        line.startswith("-A ") or (line.startswith(":") and line.split()[1] not in ("ACCEPT", "-"))
        for line in lines
    )


def _hook(table: str, chain: str, policy: str) -> Hook | None:
    name = _HOOKS.get(chain)
    return Hook(name, _PRIORITIES.get(table, 0), accepts=policy != "DROP") if name else None


def _rule(line: str, chains: Collection[str]) -> Rule:
    try:
        words = shlex.split(line)[2:]
    except ValueError:
        return Rule(line, (), Act.UNKNOWN)
    conditions: list[Condition] = []
    act, target = Act.NOTHING, ""
    for option in _options(words):
        if option.name in ("-j", "-g"):
            act, target = _act(option, chains)
        elif option.name not in _OF_TARGETS and (act is Act.NOTHING):
            conditions.append(_condition(option))
    return Rule(line, tuple(conditions), act, target)


def _act(option: _Option, chains: Collection[str]) -> tuple[Act, str]:
    name = option.values[0] if option.values else ""
    if name in chains:
        return (Act.GOTO if option.name == "-g" else Act.JUMP), name
    return _ACTS.get(name, Act.NOTHING if name in _WITHOUT_EFFECT else Act.UNKNOWN), ""


def _options(words: Sequence[str]) -> Iterator[_Option]:
    name, negative, next_negative = "", False, False
    values: list[str] = []
    for word in words:
        if word == "!":
            next_negative = True
        elif word.startswith("-") and len(word) > 1 and not word[1].isdigit():
            if name:
                yield _Option(name, tuple(values), negative)
            name, values, negative, next_negative = word, [], next_negative, False
        else:
            values.append(word)
    if name:
        yield _Option(name, tuple(values), negative)


def _condition(option: _Option) -> Condition:
    judge = _JUDGES.get(option.name)
    if judge is None:
        return lambda _: None
    if option.negated:
        return lambda packet: negated(judge(packet, option.values))
    return lambda packet: judge(packet, option.values)


def _source(packet: Packet, values: Sequence[str]) -> Truth:
    try:
        return truth_of_any(within(packet.source, ip_network(v, strict=False)) for v in values[0].split(","))
    except (ValueError, IndexError):
        return None


def _protocol(_: Packet, values: Sequence[str]) -> Truth:
    return values[:1] in (("tcp",), ("6",), ("all",), ("0",))


def _ports(packet: Packet, values: Sequence[str]) -> Truth:
    try:
        spans = [span.partition(":") for span in values[0].split(",")]
        return any(
            int(low or 0) <= packet.port <= int(high or 65535 if colon else low) for low, colon, high in spans
        )
    except (ValueError, IndexError):
        return None


def _kind_of_destination(_: Packet, values: Sequence[str]) -> Truth:
    return "LOCAL" in values[0].split(",") if values else None


def _destination(_: Packet, values: Sequence[str]) -> Truth:
    try:
        return False if ip_network(values[0], strict=False).is_multicast else None
    except (ValueError, IndexError):
        return None


def _device(_: Packet, values: Sequence[str]) -> Truth:
    return False if values[:1] == ("lo",) else None


def _state(_: Packet, values: Sequence[str]) -> Truth:
    """New. Whether its addresses are translated (DNAT, SNAT) the rules that do it decide by themselves."""
    return "NEW" in values[0].split(",") if values else None


def _flags(_: Packet, values: Sequence[str]) -> Truth:
    if len(values) != 2:
        return None
    mask, wanted = (frozenset(value.split(",")) - {"NONE"} for value in values)
    return (_SYN_FLAGS if "ALL" in mask else _SYN_FLAGS & mask) == wanted


_JUDGES: dict[str, _Judge] = {
    "-s": _source,
    "-d": _destination,
    "-p": _protocol,
    "--dst-type": _kind_of_destination,
    "-i": _device,
    "--dport": _ports,
    "--dports": _ports,
    "--state": _state,
    "--ctstate": _state,
    "--tcp-flags": _flags,
    "--syn": lambda _packet, _values: True,
    # Of rpfilter: peers come by the way that leads back to them, or they would get no answer.
    "--invert": lambda _packet, _values: False,
    "--loose": lambda _packet, _values: True,
    "--validmark": lambda _packet, _values: True,
    "--accept-local": lambda _packet, _values: True,
    "--rt-type": lambda _packet, _values: False,  # TCP has no routing header
    "--icmp-type": lambda _packet, _values: False,
    "--icmpv6-type": lambda _packet, _values: False,
}
