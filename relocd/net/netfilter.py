"""This host's packet filters, read and changed with their own programs. Everything here blocks."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from attrs import frozen

from relocd.errors import FirewallError
from relocd.firewall import nftjson, plan
from relocd.firewall.ruleset import Chain
from relocd.firewall.savetext import chains_of_save, is_in_force

#: Programs that read a filter or change it answer at once; a filter of 100000 rules takes seconds.
TIMEOUT_S = 20.0

#: How often a change is tried when others change the filter meanwhile.
TRIES = 3

#: More than this is not read: turning it into objects would hold up the daemon.
MAX_LISTING_BYTES = 16 << 20

_LEGACY = {"ip": "iptables-legacy-save", "ip6": "ip6tables-legacy-save"}
_OF_NFT = {"ip": "iptables-nft-save", "ip6": "ip6tables-nft-save"}
_IPV6 = Path("/proc/net/if_inet6")
_SEARCH = f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"


@frozen
class Filters:
    """What filters packets here. ``listing`` is nft's, None if it cannot be had for the reason ``nft_trouble``."""

    listing: plan.Listing | None
    nft_trouble: str
    chains: tuple[Chain, ...]
    legacy: tuple[str, ...]
    """Families (ip, ip6) whose legacy tables hold rules."""
    command: str
    """Which tables the command iptables edits: nf_tables, legacy, or nothing."""

    def trace(self, name: str) -> str:
        """What there is of that name and before it, in a form that changes if anybody touches it."""
        nft = self.listing or []
        judging = [(c["family"], c["table"], c["name"]) for c in plan.judging_chains(nft, name)]
        legacy = [_own_rules(chain, name) for chain in self.chains if chain.program == "iptables-legacy"]
        return repr((plan.own_part(nft, name), judging, [rules for rules in legacy if rules]))

    @property
    def flavours(self) -> list[str]:
        """Those that are in force: both can be, and then a packet has to pass both."""
        nft = any(chain.program != "iptables-legacy" for chain in self.chains)
        return [name for name, there in (("nftables", nft), ("iptables-legacy", bool(self.legacy))) if there]


def _own_rules(chain: Chain, name: str) -> list[tuple[object, ...]]:
    """The rules of one chain that are ours, and of those that call ours whether they are still the first."""
    return [
        (chain.family, chain.table, chain.name, rule.text, index if chain.name == name else index == 0)
        for index, rule in enumerate(chain.rules)
        if name in (chain.name, rule.target)
    ]


def read() -> Filters:
    """What there is. Raises FirewallError if a program that is installed fails."""
    listing, trouble = _listing()
    chains = [] if listing is None else nftjson.chains_of(listing, _run(["nft", "-a", "list", "ruleset"]))
    shown_by_iptables = set() if listing is None else nftjson.iptables_tables(listing)
    for family, program in _OF_NFT.items():
        if any(owner == family for owner, _ in shown_by_iptables) or (listing is None and _find(program)):
            own = chains_of_save(_run([program]), program="iptables", family=family)
            chains += [c for c in own if listing is None or (family, c.table) in shown_by_iptables]
    legacy = {family: _run([program]) for family, program in _LEGACY.items() if _find(program)}
    legacy = {family: text for family, text in legacy.items() if is_in_force(text)}
    for family, text in legacy.items():
        chains += chains_of_save(text, program="iptables-legacy", family=family)
    return Filters(listing, trouble, tuple(chains), tuple(legacy), _command())


def apply(wanted: plan.Wanted) -> Filters:
    """Let the peers in and refuse everybody else on that port; what there was of ours is replaced.

    Where only legacy tables are in force, they get our chain. Otherwise nftables does, and legacy tables as far as
    they are in force too. Returns what there is then. Raises FirewallError.
    """
    filters = read()
    listing = filters.listing
    only_legacy = bool(filters.legacy) and not (listing and plan.judging_chains(listing, wanted.name))
    if listing is None and not filters.legacy and filters.command != "legacy":
        raise FirewallError(
            f"this host's packet filter cannot be changed: {filters.nft_trouble}",
            hint="Install the package nftables, or set (xen-relocation-firewall off).",
        )
    if only_legacy or listing is None:
        _order(plan.legacy_order(wanted, ("ip", "ip6") if _IPV6.exists() else ("ip",)))
        if listing is not None:
            _change(lambda now: plan.nft_removal(now, wanted.name), listing)
    else:
        if filters.legacy:
            _order(plan.legacy_order(wanted, filters.legacy))
        _change(lambda now: plan.nft_commands(now, wanted), listing)
    return read()


def remove(name: str) -> bool:
    """Remove all that bears the name; whether there was anything. Raises FirewallError."""
    filters = read()
    found = False
    legacy = [c for c in filters.chains if c.program == "iptables-legacy"]
    families = {chain.family for chain in legacy if chain.name == name}
    if families:
        found = True
        _order({"do": "remove", "name": name, "networks": {family: [] for family in families}})
    if filters.listing is not None and plan.nft_removal(filters.listing, name):
        found = True
        _change(lambda listing: plan.nft_removal(listing, name), filters.listing)
    return found


def _change(commands_for: Any, listing: plan.Listing) -> None:
    for attempt in range(1, TRIES + 1):
        commands = commands_for(listing)
        if not commands:
            return
        try:
            _run(["nft", "-j", "-f", "-"], json.dumps({"nftables": commands}))
        except FirewallError:
            if attempt == TRIES:
                raise
            listing = _listing()[0] or []
        else:
            return


def _order(order: dict[str, Any]) -> None:
    _run([sys.executable, "-m", "relocd.net.legacy"], json.dumps(order))


def _listing() -> tuple[plan.Listing | None, str]:
    if not _find("nft"):
        return None, "the program nft is not installed"
    text = _run(["nft", "-j", "list", "ruleset"])
    if len(text) > MAX_LISTING_BYTES:
        raise FirewallError(
            f"the rules of nftables take more than {MAX_LISTING_BYTES >> 20} MiB: too much to look at"
        )
    try:
        listing = json.loads(text)["nftables"]
    except (ValueError, KeyError, TypeError):
        raise FirewallError(
            "nft -j list ruleset does not answer with JSON", hint="Is nft 0.9.3 or newer?"
        ) from None
    return listing, ""


def _command() -> str:
    """Debian's iptables edits nftables; its version says so."""
    if not _find("iptables"):
        return ""
    said = _run(["iptables", "--version"])
    return "nf_tables" if "nf_tables" in said else "legacy"


def _find(program: str) -> str | None:
    return shutil.which(program, path=_SEARCH)


def _run(argv: Sequence[str], text_in: str = "") -> str:
    words = [_find(argv[0]) or argv[0], *argv[1:]]
    environment = {**os.environ, "LC_ALL": "C"}
    shown = " ".join(argv)
    try:
        done = subprocess.run(
            words,
            input=text_in,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=TIMEOUT_S,
            env=environment,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise FirewallError(f"{shown} does not end within {TIMEOUT_S:g} s") from None
    except OSError as error:
        raise FirewallError(f"{shown} cannot be run: {error.strerror}") from error
    if done.returncode:
        said = (done.stderr or done.stdout).strip()[:500]
        raise FirewallError(f"{shown} failed: {said}", hint="Changing packet filters needs CAP_NET_ADMIN.")
    return done.stdout
