"""What xend-config.sxp had and relocd has not. Its files load; each such setting earns one gentle warning."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from relocd.patterns import may_match_letters, reaches_end
from relocd.sxp import Atom

_NOT_ENCRYPTED = "Relocations are not encrypted: keep the network between the hosts to them alone."
_SOCKET_ONLY = "Commands come through the control socket only."
_BRIDGES = "The host's own network configuration makes the bridges, and relocd connects domains to them."
_NO_BALLOON = "Memory is not taken from running domains; dom0-min-mem is kept free for the host."

WITHOUT_MEANING: dict[str, str] = {
    "xend-relocation-ssl": _NOT_ENCRYPTED,
    "xend-relocation-ssl-server": _NOT_ENCRYPTED,
    "xend-relocation-ssl-port": _NOT_ENCRYPTED,
    "xend-relocation-server-ssl-key-file": _NOT_ENCRYPTED,
    "xend-relocation-server-ssl-cert-file": _NOT_ENCRYPTED,
    "xend-http-server": _SOCKET_ONLY,
    "xend-port": _SOCKET_ONLY,
    "xend-address": _SOCKET_ONLY,
    "xend-unix-server": _SOCKET_ONLY,
    "xend-unix-path": _SOCKET_ONLY,
    "xend-unix-xmlrpc-server": _SOCKET_ONLY,
    "xend-tcp-xmlrpc-server": _SOCKET_ONLY,
    "xend-tcp-xmlrpc-server-address": _SOCKET_ONLY,
    "xend-tcp-xmlrpc-server-port": _SOCKET_ONLY,
    "xend-tcp-xmlrpc-server-ssl-key-file": _SOCKET_ONLY,
    "xend-tcp-xmlrpc-server-ssl-cert-file": _SOCKET_ONLY,
    "xen-tcp-xmlrpc-server": _SOCKET_ONLY,
    "xen-tcp-xmlrpc-server-address": _SOCKET_ONLY,
    "xen-tcp-xmlrpc-server-port": _SOCKET_ONLY,
    "xen-api-server": _SOCKET_ONLY,
    "network-script": _BRIDGES,
    "vif-script": _BRIDGES,
    "enable-dom0-ballooning": _NO_BALLOON,
    "total_available_memory": _NO_BALLOON,
    "dom0-cpus": "",
    "external-migration-tool": "Disks must be reachable from both hosts; no program is called for them.",
    "enable-dump": "",
    "device-create-timeout": "",
    "device-destroy-timeout": "",
    "max-smartpoll-reqs": "",
    "xend-domains-path": "Domains are kept in the daemon's state directory (--state-dir).",
    "xend-domain-lock": "The journal of a relocation keeps a domain from running twice.",
    "xend-domain-lock-path": "The journal of a relocation keeps a domain from running twice.",
    "xend-debug": "Use (loglevel debug).",
    "xend-udev-event-server": "",
    "vnc-listen": "",
    "vncpasswd": "",
    "vnc-tls": "",
    "vnc-x509-cert-dir": "",
    "vnc-x509-verify": "",
    "keymap": "",
    "pci-passthrough-strict-check": "",
    "pci-dev-assign-strict-check": "",
    "pscsi-device-mask": "",
    "resource-label-change-script": "",
    "qemu-dm-logrotate-count": "",
    "xsm_module_name": "",
}
"""Name to what to know instead, or nothing (xend-config.sxp(5) of Xen 3.0 to 4.4; SUSE's xend-domain-lock)."""


def differences(values: Sequence[Atom]) -> Iterator[tuple[Atom | None, str]]:
    """What a value of xend-relocation-hosts-allow meant to xend and does not mean here, and which part of it.

    xend split the first value at single spaces and matched the beginning only (relocate.py of Xen 4.4).
    """
    if not any(value.split() for value in values):
        yield None, "with xend, an empty list let in every host; here it lets in nobody. Everyone is '.*'."
        return
    if "" in values[0].split(" "):
        yield (
            values[0],
            "with xend, an extra space let in every host; here it has no meaning. Everyone is '.*'.",
        )
    for value in values[1:]:
        yield value, "xend read the first value only; relocd reads this one as well"
    for value in values:
        for pattern in value.split():
            if not reaches_end(pattern):
                yield value, _STRICTER.format(repr(pattern), repr(pattern + ".*"))
    named = [pattern for value in values for pattern in value.split() if _is_for_names(pattern)]
    if named:
        yield None, _UNCONFIRMED.format(repr(named[0]))


def _is_for_names(pattern: str) -> bool:
    """Whether a name of another host could match: not the default's own names, no address, not everything."""
    return may_match_letters(pattern) and not re.fullmatch(_NOT_FOR_NAMES, pattern)


_NOT_FOR_NAMES = r"\^?(localhost(\\?\.localdomain)?|\.[*+]|[0-9].*)\$?"

_UNCONFIRMED = (
    "with xend, a name counted as the owner of the address had it, which anybody can set up; for {} relocd wants "
    "the name to lead back to the address, in the DNS or in /etc/hosts. 'relocctl peers test HOST' shows whether."
)

_STRICTER = (
    "with xend, {} let in every host whose name or address begins like that; relocd matches them in full. "
    "The old meaning is {}."
)
