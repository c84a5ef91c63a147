"""This host's packet filters, read and changed with their own programs. Everything here blocks."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
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

_LEGACY = {"ip": "iptables-legacy-save", "ip6": "ip6tables-legacy-save"}
_OF_NFT = {"ip": "iptables-nft-save", "ip6": "ip6tables-nft-save"}
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

    @property
    def flavours(self) -> list[str]:
        """Those that are in force: both can be, and then a packet has to pass both."""
        nft = any(chain.program != "iptables-legacy" for chain in self.chains)
        return [name for name, there in (("nftables", nft), ("iptables-legacy", bool(self.legacy))) if there]


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

    Returns what is in force then. Raises FirewallError.
    """
    filters = read()
    families = _legacy_families(filters)
    if families:
        _order(plan.legacy_order(wanted, families))
    if filters.listing is not None:
        _change(lambda listing: plan.nft_commands(listing, wanted), filters.listing)
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


def _legacy_families(filters: Filters) -> tuple[str, ...]:
    if filters.listing is not None or filters.legacy:
        return filters.legacy
    if filters.command == "legacy":
        return tuple(_LEGACY)
    raise FirewallError(
        f"this host's packet filter cannot be changed: {filters.nft_trouble}",
        hint="Install the package nftables, or set (xen-relocation-firewall off).",
    )


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
