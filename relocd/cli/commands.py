"""What can be asked of relocd: the functions that ``relocctl`` and ``xm`` share. They print nothing."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from attrs import asdict, frozen

from relocd.cli.client import Client, DaemonError, JsonObject, NoAnswerError
from relocd.cli.domainfile import DomainFile
from relocd.cli.exitcodes import INTERRUPTED, OUTCOME_UNKNOWN, SUCCESS
from relocd.cli.replies import Check, Domain, Outcome, as_list, malformed
from relocd.errors import RelocdError, UnknownDomain

LOOK_TIMEOUT_S = 30.0
"""For requests that only look. relocd answers them from memory, so a longer silence is a fault."""

FIREWALL_TIMEOUT_S = 300.0
"""For what waits for name servers and reads long sets of rules."""

POLL_INTERVAL_S = 1.0
"""Between two looks at a domain that shuts down; xm's rhythm."""

ENDED_STATES = frozenset({"shutdown", "crashed"})


class StillRunningError(RelocdError):
    """A domain did not power off in the time it was given."""

    code = "timeout"


@frozen
class Created:
    """A domain that was started, and what relocd found odd in its file."""

    domain: Domain
    warnings: tuple[str, ...]
    reply: JsonObject


@frozen
class Preflight:
    """The checks of a relocation that was not made."""

    passed: bool
    checks: tuple[Check, ...]
    reply: JsonObject


@frozen
class Limits:
    """What a relocation may take, by the names of docs/control.md; None leaves it to the configuration."""

    max_bandwidth_bytes_s: int | None = None
    max_downtime_ms: int | None = None
    max_duration_s: float | None = None


@frozen
class ConsolePlace:
    """Where a domain's console is: a unix stream socket, and the log of what it said so far."""

    path: str
    log: str
    reply: JsonObject


def domains(client: Client, reference: str | None = None) -> list[Domain]:
    """All domains of this host, or the one that ``reference`` names. relocd says so if none does."""
    reply = client.call("list", domain=reference, timeout_s=LOOK_TIMEOUT_S)
    return [Domain.of(value) for value in as_list(reply.get("domains"), "a list of domains")]


def find(client: Client, reference: str) -> Domain:
    """The domain of that name, id or UUID."""
    found = domains(client, reference)
    if not found:
        raise UnknownDomain(reference)
    return found[0]


def info(client: Client) -> JsonObject:
    """Facts about this host and its daemon."""
    return client.call("info", timeout_s=LOOK_TIMEOUT_S)


def firewall(client: Client, *, remove: bool = False) -> JsonObject:
    """Whether the packet filter lets the allowed peers in; ``remove``: take away what an earlier daemon left."""
    return client.call("firewall", remove=remove or None, timeout_s=FIREWALL_TIMEOUT_S)


def peers_test(client: Client, host: str) -> JsonObject:
    """Whether the gate lets a host in, and why."""
    return client.call("peers-test", host=host, timeout_s=FIREWALL_TIMEOUT_S)


def create(client: Client, file: DomainFile, settings: dict[str, str], *, paused: bool = False) -> Created:
    """Start a domain. ``settings`` win over the file."""
    reply = client.call("create", config=file.text, source=file.source, set=settings, paused=paused)
    warnings = tuple(str(text) for text in as_list(reply.get("warnings") or [], "a list of warnings"))
    return Created(Domain.of(reply.get("domain")), warnings, reply)


def pause(client: Client, reference: str) -> Domain:
    """Stop the guest's processors; its memory stays."""
    return _act(client, "pause", reference)


def unpause(client: Client, reference: str) -> Domain:
    """Let a paused guest go on."""
    return _act(client, "unpause", reference)


def shutdown(client: Client, reference: str) -> Domain:
    """Ask the guest to power off; returns when it was asked."""
    return _act(client, "shutdown", reference)


def reboot(client: Client, reference: str) -> Domain:
    """Ask the guest to restart; returns when it was asked."""
    return _act(client, "reboot", reference)


def destroy(client: Client, reference: str) -> Domain:
    """Stop the domain at once; returns when it is gone."""
    return _act(client, "destroy", reference)


def _act(client: Client, verb: str, reference: str) -> Domain:
    return Domain.of(client.call(verb, domain=reference).get("domain"))


def console(client: Client, reference: str) -> ConsolePlace:
    """Where the domain's console is."""
    reply = client.call("console", domain=reference, timeout_s=LOOK_TIMEOUT_S)
    try:
        return ConsolePlace(str(reply["path"]), str(reply.get("log") or ""), reply)
    except KeyError as error:
        raise malformed("a console", error) from None


def check(
    client: Client, reference: str, host: str, *, port: int | None = None, measure: bool = False
) -> Preflight:
    """Find out whether the domain could move to ``host``, without moving it; ``measure``: and what it would take."""
    reply = client.call("check", domain=reference, host=host, port=port, measure=measure or None)
    checks = tuple(Check.of(value) for value in as_list(reply.get("checks"), "a list of checks"))
    return Preflight(bool(reply.get("passed")), checks, reply)


def cancel(client: Client, reference: str) -> JsonObject:
    """End a relocation before its decision, by its id or its domain; returns the outcome."""
    return client.call("cancel", relocation=reference)


def resolve(client: Client, reference: str, *, resume_here: bool, sure: bool) -> JsonObject:
    """Decide about a relocation whose peer is gone; without ``sure``, only what that would mean."""
    return client.call(
        "resolve", relocation=reference, resume_here=resume_here, discard=not resume_here, sure=sure
    )


def status(client: Client) -> list[JsonObject]:
    """The relocations that are under way, in and out."""
    reply = client.call("status", timeout_s=LOOK_TIMEOUT_S)
    return list(as_list(reply.get("relocations"), "a list of relocations"))


def history(client: Client, reference: str | None, limit: int | None) -> list[JsonObject]:
    """The relocations of the past, newest first; of one id or one domain if ``reference`` is given."""
    reply = client.call("history", relocation=reference, limit=limit, timeout_s=LOOK_TIMEOUT_S)
    return list(as_list(reply.get("relocations"), "a list of relocations"))


def wait_until_ended(
    client: Client,
    waiting: Sequence[Domain],
    on_ended: Callable[[Domain], None],
    *,
    timeout_s: float | None = None,
) -> None:
    """Return once all of ``waiting`` have powered off (or were started anew); ``on_ended`` gets each.

    Raises StillRunningError after ``timeout_s``.
    """
    deadline = None if timeout_s is None else time.monotonic() + timeout_s
    left = list(waiting)
    while True:
        still = {(d.uuid, d.id) for d in domains(client) if d.state not in ENDED_STATES}
        for domain in [d for d in left if (d.uuid, d.id) not in still]:
            left.remove(domain)
            on_ended(domain)
        if not left:
            return
        if deadline is not None and time.monotonic() >= deadline:
            names = ", ".join(f"'{d.name}'" for d in left)
            raise StillRunningError(
                f"Still running after {timeout_s:g} s: {names}.",
                hint="'relocctl destroy' stops a domain at once.",
            )
        time.sleep(POLL_INTERVAL_S)


def migrate(
    client: Client,
    reference: str,
    host: str,
    *,
    live: bool,
    port: int | None = None,
    limits: Limits | None = None,
    on_progress: Callable[[JsonObject], None] | None = None,
) -> Outcome:
    """Move a domain to ``host`` and return how that ended, failures and Ctrl-C included. Raises nothing."""
    relocation: object = None

    def note(event: JsonObject) -> None:
        nonlocal relocation
        relocation = event.get("relocation", relocation)
        if on_progress is not None:
            on_progress(event)

    def ended(reply: JsonObject, status: int, code: str = "") -> Outcome:
        return Outcome.of(
            {"relocation": relocation} | reply,
            domain=reference,
            host=host,
            live=live,
            status=status,
            code=code,
        )

    try:
        reply = client.call(
            "migrate",
            domain=reference,
            host=host,
            port=port,
            live=live,
            on_progress=note,
            **asdict(limits or Limits()),
        )
        return ended(reply, SUCCESS)
    except DaemonError as error:
        # Without an outcome in it, it is an answer to the request itself: nothing was begun.
        return ended({"outcome": "refused", "hint": error.hint} | error.reply, error.status, error.reply_code)
    except NoAnswerError as error:
        hint = f"Look with 'relocctl list' here and on {host} before you start {reference} anywhere."
        return ended({"outcome": "unknown", "error": str(error), "hint": hint}, OUTCOME_UNKNOWN, "unknown")
    except RelocdError as error:
        return ended({"error": str(error), "hint": error.hint}, error.exit_code, error.code)
    except KeyboardInterrupt:
        try:
            reply = cancel(client, str(relocation or reference))
        except (RelocdError, KeyboardInterrupt) as error:
            text = f"Interrupted, but the relocation of '{reference}' to {host} goes on: {error}"
            hint = f"'relocctl status', and 'relocctl list' here and on {host}, show where the domain is."
            return ended({"outcome": "unknown", "error": text, "hint": hint}, INTERRUPTED, "interrupted")
        return ended(reply, INTERRUPTED, "interrupted")
