"""xm, the tool of xend, as a second face of relocctl: its syntax, its output and its exit codes.

Exit codes: 0 done, 3 no such domain, 1 everything else, usage included. Cluster agents rely on no more.
"""

from __future__ import annotations

import getopt
import sys
import time
from collections.abc import Callable, Sequence

from relocd.cli import commands, console, domainfile, failures, xm_format, xm_help, xm_host
from relocd.cli.client import Client, socket_path
from relocd.cli.exitcodes import FAILURE, SUCCESS, UNKNOWN_DOMAIN
from relocd.cli.replies import Domain, Outcome
from relocd.errors import PeerUnreachable, RelocdError, UnknownDomain, UsageError
from relocd.model import DomainState

DEFAULT_PATH = ".:/etc/xen"
Options = dict[str, str]


class XmUsageError(UsageError):
    """Wrong operands or options: the message is followed by the subcommand's usage."""


def parse(arguments: Sequence[str], short: str, long: dict[str, str]) -> tuple[Options, list[str]]:
    """Options by letter, and operands; they may be mixed. ``long`` maps long names to short ones.

    Raises XmUsageError in getopt's own words, as xm printed them.
    """
    try:
        pairs, operands = getopt.gnu_getopt(list(arguments), short, list(long))
    except getopt.GetoptError as error:
        raise XmUsageError(error.msg) from None
    letters = {name.rstrip("="): letter for name, letter in long.items()}
    return {letters.get(key.lstrip("-"), key.lstrip("-")): value for key, value in pairs}, operands


def one_domain(name: str, arguments: Sequence[str]) -> str:
    """The only operand of a subcommand that takes no options. Domain-0 is no guest."""
    _, operands = parse(arguments, "", {})
    if len(operands) != 1:
        raise XmUsageError(f"'xm {name}' requires 1 argument.")
    return guest(name, operands[0])


def guest(name: str, reference: str) -> str:
    """``reference``, unless it means the host itself."""
    if reference in xm_host.DOM0_REFERENCES:
        raise UsageError(f"Cannot {name} privileged domain {reference}")
    return reference


def visible(client: Client) -> list[Domain]:
    """The domains that xm may show, by name. One that is still being received is not this host's own.

    A cluster that saw it listed here would take it for running on both hosts.
    """
    shown = (d for d in commands.domains(client) if d.state != DomainState.INCOMING)
    return sorted(shown, key=lambda d: d.name)


def select(client: Client, references: Sequence[str]) -> list[Domain]:
    """The domains named, in this order, or all with the host first."""
    if not references:
        guests = visible(client)
        return [xm_host.dom0(commands.info(client), guests), *guests]
    return [_one(client, reference) for reference in references]


def _one(client: Client, reference: str) -> Domain:
    if reference in xm_host.DOM0_REFERENCES:
        return xm_host.dom0(commands.info(client), visible(client))
    domain = commands.find(client, reference)
    if domain.state == DomainState.INCOMING:
        raise UnknownDomain(reference)
    return domain


def xm_list(client: Client, arguments: Sequence[str]) -> int:
    """``xm list``."""
    options, references = parse(arguments, "l", {"long": "l", "state=": "state"})
    state = options.get("state", "all")
    if state not in xm_format.STATES:
        raise XmUsageError(f"State must be one of {', '.join(xm_format.STATES)}.")
    if state != "all" and references:
        raise XmUsageError("You may specify either a state or a particular VM, but not both")
    wanted = xm_format.STATES[state]
    domains = [d for d in select(client, references) if wanted in (None, xm_format.status(d))]
    if "l" in options:
        for domain in domains:
            print(xm_format.long(domain))
    else:
        print(xm_format.brief(domains))
    return SUCCESS


_MIGRATE_UNSUPPORTED = {
    "s": "-s (--ssl) is not supported: this version of relocd has no TLS. Relocate over a trusted network.",
    "n": "-n (--node) is not supported: relocd does not bind domains to NUMA nodes.",
    "c": "-c (--change_home_server) is not supported: relocd keeps no list of managed domains; the "
    "configuration always moves with the domain.",
}


def xm_migrate(client: Client, arguments: Sequence[str]) -> int:
    """``xm migrate``: silent on success. ``-r``, which never did anything, is refused as by late xm."""
    long = {"live": "l", "port=": "p", "ssl": "s", "node=": "n", "change_home_server": "c"}
    options, operands = parse(arguments, "lp:sn:c", long)
    for letter, text in _MIGRATE_UNSUPPORTED.items():
        if letter in options:
            raise XmUsageError(text)
    if len(operands) != 2:
        raise XmUsageError("Invalid number of arguments")
    domain, host = guest("migrate", operands[0]), operands[1]
    outcome = commands.migrate(
        client, domain, host, live="l" in options, port=_port(options.get("p", "0")) or None
    )
    if not outcome.completed:
        failures.report(_as_clients_know_it(outcome), outcome.hint)
    return outcome.status


def _port(text: str) -> int:
    """A port; 0 is the configured one. xm's usage wrote ``-p=PORT``, so a leading ``=`` is forgiven."""
    number = text.removeprefix("=")
    if not number.isdecimal() or int(number) > 65535:
        raise XmUsageError(f"Invalid port number: {text}")
    return int(number)


def _as_clients_know_it(outcome: Outcome) -> str:
    """The error, with the system's own words in front where scripts look for them: rgmanager greps these."""
    words = "Connection refused"
    missing = outcome.status == PeerUnreachable.exit_code and words not in outcome.error
    return f"{words}: {outcome.error}" if missing and "refused" in outcome.error else outcome.error


def xm_create(client: Client, arguments: Sequence[str]) -> int:
    """``xm create``."""
    long = {"quiet": "q", "path=": "path", "defconfig=": "f", "dryrun": "n", "paused": "p"}
    options, operands = parse(arguments, "qf:F:npc", {**long, "config=": "F", "console_autoconnect": "c"})
    files, settings = domainfile.split_operands(operands)
    named = [options[letter] for letter in "fF" if letter in options]
    path = domainfile.search(
        domainfile.only_file([*named, *files]), options.get("path", DEFAULT_PATH).split(":")
    )
    file = domainfile.read(path)
    quiet = "q" in options
    if not quiet:
        print(f'Using config file "{path}".', flush=True)
    if "n" in options:
        return _dry_run(file, settings)
    created = commands.create(client, file, settings, paused="p" in options)
    failures.warn(created.warnings)
    if not quiet:
        print(f"Started domain {created.domain.name} (id={created.domain.id})", flush=True)
    return _attach(client, created.domain.uuid, quiet=quiet) if "c" in options else SUCCESS


def _dry_run(file: domainfile.DomainFile, settings: dict[str, str]) -> int:
    # Loading the parser takes a third of the time of a whole 'xm list', which clusters run every few seconds.
    from relocd.cli.preview import preview

    result = preview(file, settings)
    failures.warn(result.warnings)
    print(xm_format.broken(result.record))
    return SUCCESS


def xm_shutdown(client: Client, arguments: Sequence[str]) -> int:
    """``xm shutdown``."""
    long = {"all": "a", "wait": "w", "halt": "H", "reboot": "R"}
    options, references = parse(arguments, "awHR", long)
    if "H" in options and "R" in options:
        raise XmUsageError("Can't specify halt and reboot")
    return _end(client, "shutdown", options, references, restart="R" in options)


def xm_reboot(client: Client, arguments: Sequence[str]) -> int:
    """``xm reboot``."""
    options, references = parse(arguments, "aw", {"all": "a", "wait": "w"})
    return _end(client, "reboot", options, references, restart=True)


def _end(client: Client, name: str, options: Options, references: list[str], *, restart: bool) -> int:
    if restart and "w" in options:
        raise XmUsageError("-w is not supported for a reboot: relocd is not told when a guest has restarted.")
    if "a" in options:
        references = [domain.uuid for domain in visible(client)]
    elif len(references) != 1:
        raise XmUsageError(
            "No multiple domain parameters allowed" if references else "No domain parameter given"
        )
    act = commands.reboot if restart else commands.shutdown
    asked = [act(client, guest(name, reference)) for reference in references]
    if "w" in options:
        commands.wait_until_ended(client, asked, lambda d: print(f"Domain {d.name} terminated", flush=True))
        print("All domains terminated")
    return SUCCESS


def xm_console(client: Client, arguments: Sequence[str]) -> int:
    """``xm console``."""
    options, operands = parse(arguments, "qn:", {"quiet": "q", "num=": "n"})
    if len(operands) != 1:
        raise XmUsageError("'xm console' requires 1 argument.")
    if options.get("n", "0") != "0":
        raise XmUsageError("-n (--num) is not supported: a domain has one console, number 0.")
    quiet = "q" in options
    try:
        return _attach(client, guest("console", operands[0]), quiet=quiet)
    except RelocdError as error:
        if quiet and failures.exit_status(error) == UNKNOWN_DOMAIN:
            return FAILURE
        raise


def _attach(client: Client, reference: str, *, quiet: bool) -> int:
    console.attach(reference, commands.console(client, reference).path, quiet=quiet)
    return SUCCESS


def xm_domid(client: Client, arguments: Sequence[str]) -> int:
    """``xm domid``."""
    _, operands = parse(arguments, "", {})
    if len(operands) != 1:
        raise XmUsageError("'xm domid' requires 1 argument.")
    print(_one(client, operands[0]).id)
    return SUCCESS


def xm_domname(client: Client, arguments: Sequence[str]) -> int:
    """``xm domname``."""
    _, operands = parse(arguments, "", {})
    if len(operands) != 1:
        raise XmUsageError("'xm domname' requires 1 argument.")
    print(_one(client, operands[0]).name)
    return SUCCESS


def xm_uptime(client: Client, arguments: Sequence[str]) -> int:
    """``xm uptime``."""
    options, references = parse(arguments, "s", {"short": "s"})
    domains = select(client, references)
    if "s" in options:
        print(xm_format.short_uptimes(domains, time.strftime("%H:%M:%S")))
    else:
        print(xm_format.uptimes(domains))
    return SUCCESS


def xm_info(client: Client, arguments: Sequence[str]) -> int:
    """``xm info``."""
    options, _ = parse(arguments, "nc", {"numa": "n", "config": "c"})
    if options:
        raise XmUsageError("-n and -c are not supported: 'relocctl info' names relocd's own settings.")
    print(xm_format.facts(xm_host.facts(commands.info(client))))
    return SUCCESS


def _acts(name: str, act: Callable[[Client, str], Domain]) -> Callable[[Client, Sequence[str]], int]:
    """A subcommand that does one thing to one domain and is silent about it."""

    def run(client: Client, arguments: Sequence[str]) -> int:
        act(client, one_domain(name, arguments))
        return SUCCESS

    return run


RUN: dict[str, Callable[[Client, Sequence[str]], int]] = {
    "console": xm_console,
    "create": xm_create,
    "destroy": _acts("destroy", commands.destroy),
    "domid": xm_domid,
    "domname": xm_domname,
    "info": xm_info,
    "list": xm_list,
    "migrate": xm_migrate,
    "pause": _acts("pause", commands.pause),
    "reboot": xm_reboot,
    "shutdown": xm_shutdown,
    "unpause": _acts("unpause", commands.unpause),
    "uptime": xm_uptime,
}


def run(arguments: Sequence[str]) -> int:
    """Do what the command line says and return the exit code of relocctl's table."""
    if not arguments:
        print(xm_help.overview())
        return FAILURE
    word, *rest = arguments
    if word in ("help", "--help", "-h"):
        print(xm_help.overview())
        return SUCCESS
    name = xm_help.lookup(word)
    if name is None:
        failures.report(f"Subcommand {word} not found!")
        print(xm_help.overview())
        return FAILURE
    if name in xm_help.UNSUPPORTED:
        raise UsageError(f"'xm {name}' is not supported: {xm_help.UNSUPPORTED[name]}.")
    if "-h" in rest or "--help" in rest:
        print(xm_help.usage(name))
        return FAILURE
    try:
        return RUN[name](Client(socket_path()), rest)
    except XmUsageError as error:
        failures.report(str(error))
        print(xm_help.usage(name))
        return FAILURE


def main() -> None:
    """Entry point of the command."""
    status = failures.guarded(lambda: run(sys.argv[1:]))
    sys.exit(status if status in (SUCCESS, UNKNOWN_DOMAIN) else FAILURE)


if __name__ == "__main__":
    main()
