"""relocctl: asks the relocation daemon of this host. ``relocctl --help`` explains itself."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import click

from relocd.cli import commands, console, domainfile, failures, records, render
from relocd.cli.client import Client, JsonObject
from relocd.cli.exitcodes import INTERRUPTED, REFUSED, SUCCESS
from relocd.cli.forecast import prediction_text
from relocd.cli.frame import answer, cli, domain_argument, echo_json, host_argument, port_option, verb
from relocd.cli.progress import JsonView, View, view_for
from relocd.cli.quantities import limit_options
from relocd.errors import RelocdError, UsageError


@verb(
    epilog="""\b
Examples:
  relocctl create web.cfg
  relocctl create web.cfg name=web2 memory=512 --paused
  sed s/OLD/NEW/ web.cfg | relocctl create -
""",
)
@click.option("--paused", is_flag=True, help="Do not let the guest run yet ('relocctl unpause' does).")
@click.option("--console", "attach", is_flag=True, help="Attach to the domain's console once it is started.")
@click.argument("operands", nargs=-1, required=True, metavar="FILE [KEY=VALUE]...")
def create(client: Client, as_json: bool, paused: bool, attach: bool, operands: tuple[str, ...]) -> int:
    """Start a domain as FILE describes it.

    FILE is a domain file ('key = value' lines as xm and xl read them, or an S-expression); '-' reads it from
    stdin. It is parsed, never executed. KEY=VALUE settings win over the file.
    """
    if attach and as_json:
        raise UsageError("--console cannot go with --json.", hint="Run 'relocctl console' afterwards.")
    files, settings = domainfile.split_operands(operands)
    created = commands.create(client, domainfile.read(domainfile.only_file(files)), settings, paused=paused)
    failures.warn(created.warnings)
    domain = created.domain
    answer(as_json, created.reply, f"Started domain {domain.name} (id={domain.id})")
    return _attach(client, domain.uuid) if attach else SUCCESS


@verb("list")
@click.argument("domain", required=False)
def list_(client: Client, as_json: bool, domain: str | None) -> int:
    """Show the domains of this host, or one of them.

    'outgoing' is a domain at the end of its relocation, paused, which the other host may own already;
    'incoming' is being received and not this host's own yet. --json prints an array of objects.
    """
    found = commands.domains(client, domain)
    return answer(as_json, [d.raw for d in found], render.domains_table(found))


@verb()
def info(client: Client, as_json: bool) -> int:
    """Show facts about this host and its daemon."""
    reply = commands.info(client)
    return answer(as_json, reply, render.info_text(reply))


measure_option = click.option(
    "--measure",
    is_flag=True,
    help="Sample guest and link for some three seconds and predict duration, downtime and bytes.",
)


@verb(epilog=f"Exits with {REFUSED} if a check fails. A warning does not stop a relocation.")
@measure_option
@domain_argument
@host_argument
@port_option
def check(client: Client, as_json: bool, measure: bool, domain: str, host: str, port: int | None) -> int:
    """Find out whether DOMAIN can move to HOST, without moving it.

    Shows every check with its reason, and what to do about those that fail. 'migrate' makes the same checks.
    """
    preflight = commands.check(client, domain, host, port=port, measure=measure)
    told = (render.preflight_text(preflight, domain, host), prediction_text(preflight.reply))
    answer(as_json, preflight.reply, "\n\n".join(filter(None, told)))
    return SUCCESS if preflight.passed else REFUSED


@verb(
    epilog="""\b
Examples:
  relocctl migrate --live web hostb
  relocctl migrate web 192.0.2.7 --port 8012
  relocctl migrate --live web hostb --max-bandwidth 50M --timeout 600
  relocctl migrate --live --json web hostb | tail -1

RATE is in bytes per second; K, M and G are units of 1024, 1024^2, 1024^3. The
configuration of this host says what is allowed at most, and what holds without
these options.

Whatever goes wrong before the hand-over leaves the domain on this host, as it
was. So does Ctrl-C, which cancels the relocation as long as that is possible.
--json prints a line for every
step and last, also after a failure, the outcome.
""",
)
@click.option("--live", "-l", is_flag=True, help="Let the guest work while its memory moves.")
@measure_option
@domain_argument
@host_argument
@port_option
@limit_options
def migrate(
    client: Client,
    as_json: bool,
    live: bool,
    measure: bool,
    domain: str,
    host: str,
    port: int | None,
    **limits: Any,
) -> int:
    """Move DOMAIN to HOST.

    On a terminal a bar shows how far it is; elsewhere a line is printed for every step.
    """
    if measure:
        _predict(client, as_json, domain, host, port)
    view: View = JsonView(sys.stdout) if as_json else view_for(domain, host)
    with view:
        allowed = commands.Limits(**limits)
        outcome = commands.migrate(
            client, domain, host, live=live, port=port, limits=allowed, on_progress=view.update
        )
    if as_json:
        echo_json(outcome.raw)
    elif outcome.completed:
        click.echo(render.summary(outcome))
    if not outcome.completed:
        prefix = "" if outcome.status == INTERRUPTED else "Error: "
        failures.report(outcome.error, outcome.hint, prefix=prefix)
    return outcome.status


def _predict(client: Client, as_json: bool, domain: str, host: str, port: int | None) -> None:
    """Tell what the relocation will take; the daemon puts it into the timeline. No hindrance is one to 'migrate'."""
    try:
        reply = commands.check(client, domain, host, port=port, measure=True).reply
    except RelocdError as error:
        reply = {"prediction": None, "no_prediction": str(error)}
    if as_json:
        keys = ("prediction", "no_prediction")
        echo_json({"event": "prediction"} | {key: reply.get(key) for key in keys})
    else:
        click.echo(prediction_text(reply), err=True)


@verb(epilog="A relocation that is decided cannot be cancelled; its domain belongs to the other host.")
@click.argument("relocation")
def cancel(client: Client, as_json: bool, relocation: str) -> int:
    """End a relocation, out or in, before it is decided.

    RELOCATION is its id, or the name or UUID of its domain. The domain stays on the source, as it was.
    """
    outcome = commands.cancel(client, relocation)
    text = f"Relocation {outcome.get('relocation')} is cancelled; the domain stays on the source, as it was."
    return answer(as_json, outcome, text)


@verb()
def status(client: Client, as_json: bool) -> int:
    """Show the relocations under way, in and out, with how far each is decided.

    Of one that is decided and not confirmed it tells what this host and the other one know.
    """
    found = commands.status(client)
    return answer(as_json, found, records.status_text(found))


@verb(
    epilog="""\b
Examples:
  relocctl resolve web --resume-here      the copy here is the domain now
  relocctl resolve web --discard          the copy here goes, wherever the domain is

Only for the day a host is gone for good in the short time between decision and
confirmation. As long as that host can be asked, this refuses: the two settle it
by themselves. Without --yes it says what is known and what is risked, and asks.
""",
)
@click.option("--resume-here", is_flag=True, help="The copy on this host is the domain: resume it.")
@click.option("--discard", is_flag=True, help="Destroy the copy on this host.")
@click.option("--yes", "-y", is_flag=True, help="Do not ask. Use it only after reading what is risked.")
@click.argument("relocation")
def resolve(
    client: Client, as_json: bool, resume_here: bool, discard: bool, yes: bool, relocation: str
) -> int:
    """Decide about a relocation whose other host is gone for good.

    RELOCATION is its id, or the name or UUID of its domain, as 'relocctl status' shows it.
    """
    if resume_here == discard:
        raise UsageError(
            "Say what is to become of the copy on this host: --resume-here or --discard.",
            hint="'relocctl status' tells what is known.",
        )
    advice = commands.resolve(client, relocation, resume_here=resume_here, sure=False)
    if not yes:
        if not as_json:
            click.echo(records.advice_text(advice), err=True)
        _ask_whether_sure(as_json, advice)
    decided = commands.resolve(client, relocation, resume_here=resume_here, sure=True)
    done = "is resumed here" if resume_here else "is given up here"
    return answer(as_json, decided, f"Decided: the copy of domain '{decided.get('domain')}' {done}.")


def _ask_whether_sure(as_json: bool, advice: JsonObject) -> None:
    if as_json or not sys.stdin.isatty():
        told = f"{advice.get('risk')} " if as_json else ""
        raise UsageError(
            "Nothing is decided: this needs somebody who is sure.",
            hint=f"{told}If you are, repeat the command with --yes.",
        )
    if not click.confirm("Decide so?", err=True):
        raise UsageError("Nothing is decided.", hint="'relocctl status' shows what is known.")


@verb()
@click.option("--limit", "-n", type=click.IntRange(1, 10_000), help="How many at most. Default: 20.")
@click.option(
    "--plot",
    "plot_file",
    type=click.Path(dir_okay=False, writable=True, path_type=Path),
    metavar="FILE",
    help="Draw this one relocation, as SVG: rates, what was left, rounds and the downtime.",
)
@click.argument("relocation", required=False)
def history(
    client: Client, as_json: bool, limit: int | None, plot_file: Path | None, relocation: str | None
) -> int:
    """Show how relocations of this host ended, newest first.

    RELOCATION, the name or UUID of a domain, shows only those; a relocation's id shows that one with its
    timeline: phases, checks, rounds, rates, and why it ended as it did.
    """
    found = commands.history(client, relocation, limit)
    if plot_file is not None:
        _draw(found, plot_file)
    if any("timeline" in row for row in found):
        return answer(as_json, found, "\n\n".join(map(records.history_text, found)))
    return answer(as_json, found, records.history_table(found))


def _draw(found: list[JsonObject], file: Path) -> None:
    if file.suffix.lower() != ".svg":
        raise UsageError(f"--plot writes SVG, and '{file}' does not end in .svg.", hint="Name it so.")
    from relocd.cli.picture import picture  # here, so that other commands need not load it
    from relocd.cli.plot import svg

    text = svg(picture(found))
    try:
        file.write_text(text, "utf-8")
    except OSError as error:
        raise UsageError(f"Cannot write {file}: {error.strerror}.") from None


@verb()
@domain_argument
def pause(client: Client, as_json: bool, domain: str) -> int:
    """Stop the processors of DOMAIN; its memory stays as it is."""
    paused = commands.pause(client, domain)
    return answer(as_json, paused.raw, f"Domain '{paused.name}' is paused.")


@verb()
@domain_argument
def unpause(client: Client, as_json: bool, domain: str) -> int:
    """Let a paused DOMAIN go on."""
    unpaused = commands.unpause(client, domain)
    return answer(as_json, unpaused.raw, f"Domain '{unpaused.name}' goes on.")


@verb()
@click.option("--wait", "-w", is_flag=True, help="Return when the domain has powered off.")
@click.option(
    "--timeout", type=click.FloatRange(min=0), metavar="SECONDS", help="With --wait: how long at most."
)
@domain_argument
def shutdown(client: Client, as_json: bool, wait: bool, timeout: float | None, domain: str) -> int:
    """Ask the guest of DOMAIN to power off.

    The guest decides whether and when it does; 'relocctl destroy' does not ask.
    """
    asked = commands.shutdown(client, domain)
    if not wait:
        return answer(as_json, asked.raw, f"Asked the guest of '{asked.name}' to power off.")
    commands.wait_until_ended(client, [asked], lambda _: None, timeout_s=timeout)
    return answer(as_json, asked.raw, f"Domain '{asked.name}' has powered off.")


@verb()
@domain_argument
def reboot(client: Client, as_json: bool, domain: str) -> int:
    """Ask the guest of DOMAIN to restart."""
    asked = commands.reboot(client, domain)
    return answer(as_json, asked.raw, f"Asked the guest of '{asked.name}' to restart.")


@verb()
@domain_argument
def destroy(client: Client, as_json: bool, domain: str) -> int:
    """Stop DOMAIN at once, as if its power were cut."""
    destroyed = commands.destroy(client, domain)
    return answer(as_json, destroyed.raw, f"Domain '{destroyed.name}' is destroyed.")


@verb("console", epilog="--json does not attach; it prints the paths of the console's socket and of its log.")
@domain_argument
def console_(client: Client, as_json: bool, domain: str) -> int:
    """Attach this terminal to the console of DOMAIN. Ctrl-] leaves.

    If stdin is a pipe or a file, its bytes are sent, and the guest's answer is shown until it is silent.
    """
    if as_json:
        echo_json(commands.console(client, domain).reply)
        return SUCCESS
    return _attach(client, domain)


def _attach(client: Client, domain: str) -> int:
    place = commands.console(client, domain)
    console.attach(domain, place.path)
    return SUCCESS


def _run() -> int:
    try:
        return int(cli.main(prog_name="relocctl", standalone_mode=False) or SUCCESS)
    except click.exceptions.NoArgsIsHelpError as error:
        error.show()
        return UsageError.exit_code
    except click.ClickException as error:
        context = getattr(error, "ctx", None)
        command = context.command_path if isinstance(context, click.Context) else "relocctl"
        raise UsageError(error.format_message(), hint=f"'{command} --help' explains the command.") from None
    except click.Abort:
        raise KeyboardInterrupt from None


def main() -> None:
    """Entry point of the command."""
    sys.exit(failures.guarded(_run))


if __name__ == "__main__":
    main()
