"""What ``xm`` can do here and what it cannot: one table, from which the usage texts and the lookup are made.

Names, synopses and the layout of the texts are those of xm in Xen 3.2 to 4.4, because scripts parse them.
"""

from __future__ import annotations

from attrs import frozen


@frozen
class Subcommand:
    """One subcommand: its operands, one sentence, and its options as (short, long, meaning)."""

    synopsis: str
    description: str
    options: tuple[tuple[str, str, str], ...] = ()


_WAIT = ("-w", "--wait", "Wait until the domains have powered off.")

SUBCOMMANDS = {
    "console": Subcommand(
        "[-q|--quiet] <Domain>",
        "Attach to <Domain>'s console; Ctrl-] leaves it.",
        (("-q", "--quiet", "Say nothing, not even if the domain does not exist."),),
    ),
    "create": Subcommand(
        "<ConfigFile> [options] [vars]",
        "Create a domain based on <ConfigFile>.",
        (
            ("-q", "--quiet", "Quiet."),
            ("", "--path=PATH", "Search path for config files, separated by colons. Default .:/etc/xen"),
            ("-f=FILE", "--defconfig=FILE", "Use this config file."),
            ("-F=FILE", "--config=FILE", "Use this config file, an S-expression."),
            ("-n", "--dryrun", "Print the resulting configuration and do not create the domain."),
            ("-p", "--paused", "Leave the domain paused after it is created."),
            ("-c", "--console_autoconnect", "Connect to the console after the domain is created."),
        ),
    ),
    "destroy": Subcommand("<Domain>", "Terminate a domain immediately."),
    "domid": Subcommand("<DomainName>", "Convert a domain name to domain id."),
    "domname": Subcommand("<DomId>", "Convert a domain id to domain name."),
    "info": Subcommand("", "Get information about this host."),
    "list": Subcommand(
        "[options] [Domain, ...]",
        "List information about all/some domains.",
        (
            ("-l", "--long", "Output all details as S-expressions."),
            ("", "--state=<state>", "Only domains in this state: all, halted, paused, running, crashed."),
        ),
    ),
    "migrate": Subcommand(
        "<Domain> <Host>",
        "Migrate a domain to another machine.",
        (
            ("-l", "--live", "Use live migration."),
            ("-p=portnum", "--port=portnum", "Relocation port of the other machine."),
        ),
    ),
    "pause": Subcommand("<Domain>", "Pause execution of a domain."),
    "reboot": Subcommand("<Domain> [-a]", "Reboot a domain.", (("-a", "--all", "Reboot all domains."),)),
    "shutdown": Subcommand(
        "<Domain> [-waRH]",
        "Shutdown a domain.",
        (
            ("-a", "--all", "Shutdown all domains."),
            _WAIT,
            ("-H", "--halt", "Shutdown without reboot."),
            ("-R", "--reboot", "Shutdown and reboot."),
        ),
    ),
    "unpause": Subcommand("<Domain>", "Unpause a paused domain."),
    "uptime": Subcommand(
        "[-s] [Domain, ...]",
        "Print uptime for all/some domains.",
        (("-s", "--short", "Print the time of day and one line a domain."),),
    ),
}

_SAVED = "relocd moves domains between hosts and keeps none in files"
_MANAGED = "relocd keeps no list of managed domains; a domain's file and 'xm create' take its place"
_RESIZE = "relocd does not change memory or processors of a running domain"
_DEVICES = "relocd does not change devices of a running domain; 'relocctl list --json' shows them"
_XEN = "it belongs to the Xen hypervisor itself"
_LABELS = "relocd has no security labels"
_ELSEWHERE = "relocd does not offer it"

UNSUPPORTED = {
    **dict.fromkeys(("save", "restore", "dump-core"), _SAVED),
    **dict.fromkeys(("new", "delete", "start", "suspend", "resume"), _MANAGED),
    **dict.fromkeys(("mem-max", "mem-set", "vcpu-list", "vcpu-pin", "vcpu-set"), _RESIZE),
    **dict.fromkeys(("block-attach", "block-configure", "block-detach", "block-list"), _DEVICES),
    **dict.fromkeys(("network-attach", "network-detach", "network-list"), _DEVICES),
    **dict.fromkeys(("pci-attach", "pci-detach", "pci-list", "scsi-attach", "scsi-detach"), _DEVICES),
    **dict.fromkeys(("debug-keys", "dmesg", "sched-credit", "sched-sedf", "serve"), _XEN),
    **dict.fromkeys(("addlabel", "dry-run", "getlabel", "labels", "resources", "rmlabel"), _LABELS),
    **dict.fromkeys(("domstate", "log", "rename", "reset", "shell", "sysrq", "top", "trigger"), _ELSEWHERE),
}
"""What xm had and relocd has not, and why. Prefixes that were ambiguous with them stay so."""

HEADER = "Usage: xm <subcommand> [args]\n\nControl, list, and manipulate domains through relocd.\n"
FOOTER = (
    "<Domain> can either be the Domain Name, Id or UUID.\n"
    "For more help on 'xm' see the xm(1) man page; 'relocctl --help' shows what else relocd can do.\n"
)


def lookup(word: str) -> str | None:
    """The subcommand that ``word`` names: itself, or a prefix of at least two letters that only it has."""
    names = [*SUBCOMMANDS, *UNSUPPORTED]
    if word in names:
        return word
    matches = [name for name in names if len(word) > 1 and name.startswith(word)]
    return matches[0] if len(matches) == 1 else None


def usage(name: str) -> str:
    """The usage of one subcommand."""
    subcommand = SUBCOMMANDS[name]
    lines = [f"Usage: xm {name} {subcommand.synopsis}".rstrip(), "", subcommand.description]
    if subcommand.options:
        lines += ["", "Options:", ""]
        lines += [
            f"  {', '.join(filter(None, (short, long))):30} {meaning}"
            for short, long, meaning in subcommand.options
        ]
    return "\n".join([*lines, ""])


def overview() -> str:
    """What ``xm help`` prints."""
    rows = [f" {name:20} {subcommand.description}" for name, subcommand in SUBCOMMANDS.items()]
    return "\n".join([HEADER, "xm full list of subcommands:\n", *rows, "", FOOTER])
