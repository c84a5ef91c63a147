"""Every message at every state of both machines: it has its effect, or it is a breach that is told.

The tables here are written down apart from those of relocd.daemon.order: what is not in them must be a breach.
"""

from __future__ import annotations

import tempfile
from collections.abc import Awaitable, Callable, Iterator, Mapping
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import pytest
from attrs import evolve
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock

from relocd.config.model import L2Mode
from relocd.convergence.terms import Wishes, agree
from relocd.daemon import beginnings
from relocd.daemon.bandwidth import Bandwidth
from relocd.daemon.connect import Peer
from relocd.daemon.order import SOURCE, TARGET
from relocd.daemon.source import SourceRelocation
from relocd.daemon.steering import Controls
from relocd.daemon.target import TargetRelocation
from relocd.daemon.turns import Turns
from relocd.drivers.memory import forget_hosts
from relocd.errors import ProtocolError
from relocd.handover.source import SourceEffect, SourceState
from relocd.handover.target import TargetEffect, TargetState
from relocd.model import DomainConfig
from relocd.wire import messages as m
from relocd.wire import network as n
from relocd.wire.messages import Decision, Intent, Message
from tests.daemon.rig import Daemon
from tests.reactor import call

TOKEN = "0123456789abcdef" * 2
DOMAIN = DomainConfig(name="web", uuid=UUID(int=7), memory_mib=1)


class Heard:
    """The peer's end of a dialogue, as far as a relocation uses it."""

    channel = None
    lost = None
    peer = "10.0.0.2"

    def __init__(self) -> None:
        self.sent: list[Message] = []
        self.breaches: list[str] = []

    def send(self, message: Message) -> None:
        self.sent.append(message)

    def breach(self, error: ProtocolError) -> None:
        self.breaches.append(str(error))

    def close(self) -> None:
        pass


class Idle:
    """Has every effect decided upon, and none done."""

    def _effect_table(self) -> Mapping[Any, Callable[[], Awaitable[None]]]:
        async def nothing() -> None:
            pass

        return dict.fromkeys((*SourceEffect, *TargetEffect), nothing)


class IdleTarget(Idle, TargetRelocation):
    pass


class IdleSource(Idle, SourceRelocation):
    pass


Relocation = IdleTarget | IdleSource
Build = Callable[[str, str], Relocation]


@pytest.fixture(scope="module")
def build() -> Iterator[Build]:
    """Makes a relocation at a state."""
    with tempfile.TemporaryDirectory(prefix="relocd-") as name:
        daemon = Daemon(Path(name))
        context = daemon.service._context

        def make(side: str, state: str) -> Relocation:
            proposal = m.Propose(uuid4(), Intent.MOVE, True, False, 1, DOMAIN)
            relocation: Relocation
            if side == "target":
                relocation = IdleTarget(
                    context, beginnings.incoming(proposal, Peer("10.0.0.2", 1), secure=False), lambda _: None
                )
                relocation.handover._machine.state = TargetState(state)
            else:
                record = beginnings.outgoing(DOMAIN, Peer("10.0.0.2", 1), live=True, was_paused=False)
                controls = Controls(agree(daemon.config, Wishes()), Bandwidth(lambda: 0), Turns(lambda: 1))
                relocation = IdleSource(context, record, "10.0.0.2", controls)
                relocation.handover._machine.state = SourceState(state)
            object.__setattr__(relocation._record, "token", TOKEN)
            relocation._dialogue = Heard()  # type: ignore[assignment]  # what is used of it
            return relocation

        yield make
        daemon.stop()
        forget_hosts()


def samples(relocation: UUID) -> dict[str, Message]:
    """One message of each kind, and a standing with each decision."""
    some = {
        "help": m.Help(),
        "receive": m.ClassicReceive(),
        "hello": m.Hello("relocd", "hostb", 1),
        "propose": m.Propose(relocation, Intent.MOVE, True, False, 1, DOMAIN),
        "accept": m.Accept(relocation, TOKEN, 1, (), ()),
        "refuse": m.Refuse(()),
        "verdict": m.Verdicts(()),
        "lane": m.Lane(relocation, TOKEN, 0),
        "ready": m.Ready(),
        "receiving": m.Receiving(),
        "progress": m.ProgressNote(1, 2, 3),
        "switchover": m.Switchover(),
        "prepared": m.Prepared("ab" * 16, 5),
        "commit": m.Commit(),
        "resumed": m.Resumed(),
        "inquire": m.Inquire(relocation, TOKEN),
        "measure": m.Measure(1, 1),
        "measured": m.Measured(1, 1),
        "probe": n.Probe("00" * 16, L2Mode.REQUIRE, ()),
        "probing": n.Probing("00" * 16, L2Mode.REQUIRE, ()),
        "make-tunnel": n.MakeTunnel("xenbr0", 1, 4789),
        "tunnel-made": n.TunnelMade(n.End.MADE),
        "tunnel-use": n.TunnelUse(1),
        "tunnel-used": n.TunnelUsed(needed=True),
        "abort": m.Abort("cancelled", "enough"),
        "err": m.Problem("protocol", "you are wrong"),
    }
    return some | {f"standing {each.value}": m.Standing(relocation, each) for each in Decision}


HEADS = tuple(samples(UUID(int=1)))
STANDINGS = [f"standing {each.value}" for each in Decision]


def after(state: str, *same: str, **other: str) -> dict[str, str]:
    """Where messages lead from a state."""
    return dict.fromkeys(("progress", "inquire", "abort", "err", *same), state) | other


AFTER_TARGET = {
    "reserved": after("reserved", abort="discarding", err="discarding"),
    "receiving": after("receiving", "switchover", abort="discarding", err="discarding"),
    "checking": after("checking", "switchover", abort="discarding", err="discarding"),
    "prepared": after("prepared", "switchover", *STANDINGS, commit="owning", abort="discarding")
    | {"standing committed": "owning", "standing aborted": "discarding"},
    "owning": after("owning", "commit", *STANDINGS),
    "resuming": after("resuming", "commit", *STANDINGS),
    "giving-up": after("giving-up", "commit", *STANDINGS),
    "done": after("done", "commit", *STANDINGS),
    "lost": after("lost", "commit", *STANDINGS),
    "discarding": after("discarding", "switchover", "commit", *STANDINGS),
    "discarded": after("discarded", "switchover", "commit", *STANDINGS),
}
AFTER_SOURCE = {
    "opening": after("opening", "receiving", abort="undoing", err="undoing"),
    "moving": after("moving", abort="undoing", err="undoing"),
    "switching": after("switching", "prepared", abort="undoing", err="undoing"),
    "deciding": after("deciding"),
    "committed": after("committed", *STANDINGS, resumed="releasing", abort="undoing")
    | {"standing owned": "releasing", "standing aborted": "undoing"},
    "releasing": after("releasing", "resumed", *STANDINGS),
    "undoing": after("undoing", "receiving", "prepared", "resumed", *STANDINGS),
    "done": after("done", "resumed", *STANDINGS),
    "aborted": after("aborted", "receiving", "prepared", "resumed", *STANDINGS),
}
TABLES = {"target": AFTER_TARGET, "source": AFTER_SOURCE}
#: Until then a breach ends the relocation, and the domain runs on the source.
EARLY = {"target": ("reserved", "receiving", "checking"), "source": ("opening", "moving", "switching")}
ENDING = {"target": "discarding", "source": "undoing"}
CASES = [(side, state) for side, table in TABLES.items() for state in table]


def test_all_states_and_all_messages_are_in_the_tables() -> None:
    assert set(AFTER_TARGET) == set(TargetState) == set(TARGET)
    assert set(AFTER_SOURCE) == set(SourceState) == set(SOURCE)
    assert {type(message) for message in samples(UUID(int=1)).values()} == set(m._FORMS)


def hear(relocation: Relocation, message: Message) -> None:
    call(relocation._hear_message, message)


@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize(("side", "state"), CASES)
def test_a_message_has_its_effect_or_is_a_breach(build: Build, side: str, state: str, head: str) -> None:
    relocation = call(build, side, state)
    dialogue = relocation._dialogue
    assert isinstance(dialogue, Heard)
    hear(relocation, samples(relocation.id)[head])
    expected = TABLES[side][state].get(head)
    if expected is not None:
        assert relocation.handover.state == expected
        assert not dialogue.breaches
    elif state in EARLY[side]:
        assert relocation.handover.state == ENDING[side]
        assert relocation.handover.failure is not None
        assert relocation.handover.failure.code == "protocol"
        assert (
            f"'{head.split()[0]}' has no meaning at this point ({state})" in relocation.handover.failure.text
        )
    else:
        assert relocation.handover.state == state, "a breach must not decide anything any more"
        assert dialogue.breaches == [f"'{head.split()[0]}' has no meaning at this point ({state})"]


@pytest.mark.parametrize(("state", "head"), [("opening", "receiving"), ("switching", "prepared")])
def test_what_comes_once_must_not_come_twice(build: Build, state: str, head: str) -> None:
    relocation = call(build, "source", state)
    message = samples(relocation.id)[head]
    hear(relocation, message)
    assert relocation.handover.state == state
    hear(relocation, message)
    assert relocation.handover.state == "undoing"


@pytest.mark.parametrize(("side", "state"), CASES)
def test_nobody_is_told_of_or_by_another_relocation(build: Build, side: str, state: str) -> None:
    for strange in (
        lambda own: m.Inquire(uuid4(), TOKEN),
        lambda own: m.Inquire(own, TOKEN[::-1]),
        lambda own: m.Standing(uuid4(), Decision.COMMITTED),
    ):
        relocation = call(build, side, state)
        dialogue = relocation._dialogue
        assert isinstance(dialogue, Heard)
        hear(relocation, strange(relocation.id))
        assert not any(isinstance(sent, m.Standing) for sent in dialogue.sent)
        assert relocation.handover.state == (ENDING[side] if state in EARLY[side] else state)
        assert bool(dialogue.breaches) != (state in EARLY[side])


def test_a_target_that_answers_and_hangs_up_is_not_asked_without_pause(
    build: Build, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each lost link begins a new round of questions at once; together they must not become a busy loop."""
    relocation = call(build, "source", "committed")
    clock = Clock()
    relocation._context = evolve(relocation._context, reactor=clock)
    relocation._dialogue = None
    asked: list[float] = []

    async def ask() -> Decision:
        asked.append(clock.seconds())
        relocation._dialogue = Heard()  # type: ignore[assignment]  # what is used of it
        return Decision.PREPARED

    monkeypatch.setattr(relocation, "ask", ask)

    def lose_and_ask() -> None:
        for _ in range(20):
            relocation._dialogue = None
            Deferred.fromCoroutine(relocation._ask_without_end(0.0))
            clock.advance(0)
            clock.advance(0.1)
            clock.advance(0.1)

    call(lose_and_ask)
    assert asked[0] == 0.0, "the first question comes at once"
    assert 4 <= len(asked) <= 9, "in four seconds"
