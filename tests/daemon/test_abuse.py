"""Peers that mean harm, on real connections to a real daemon: what they get, and what it costs."""

from __future__ import annotations

import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import psutil
import pytest
from attrs import evolve
from twisted.internet.defer import Deferred

from relocd.daemon import relocations, stall
from relocd.drivers.memory import forget_hosts
from relocd.handover.record import Mark
from relocd.model import BootFile, Disk, DomainConfig, Vif
from relocd.pages import limits
from relocd.wire.messages import (
    Abort,
    Accept,
    Commit,
    Decision,
    Hello,
    Inquire,
    Intent,
    Lane,
    Prepared,
    Problem,
    ProgressNote,
    Ready,
    Receiving,
    Refuse,
    Standing,
    Verdicts,
    encode,
)
from tests.daemon.rig import DOMAIN_FILE, Daemon, arrived, marks
from tests.daemon.rogue import (
    HELLO,
    LOOPBACK,
    OTHER_HOST,
    Rogue,
    domain,
    lane,
    opened_lane,
    proposal,
    span_batch,
)
from tests.reactor import call

Make = Callable[..., Daemon]

FLOOD = 1500  # connections of each flooding host, at least


@pytest.fixture
def make(directory: Path) -> Iterator[Make]:
    """Starts daemons that let in both hosts of these tests."""
    daemons: list[Daemon] = []

    def make(**settings: Any) -> Daemon:
        daemons.append(Daemon(directory / str(len(daemons)), **{"hosts_allow": (LOOPBACK,)} | settings))
        return daemons[-1]

    yield make
    for daemon in daemons:
        daemon.stop()
    forget_hosts()


@pytest.fixture(scope="module")
def standing() -> Iterator[Daemon]:
    """One daemon for tests that leave nothing behind."""
    with tempfile.TemporaryDirectory(prefix="relocd-") as name:
        daemon = Daemon(Path(name), hosts_allow=(LOOPBACK,))
        yield daemon
        daemon.stop()


def eventually(check: Callable[[], bool]) -> bool:
    """Has it become true? Some of it takes as long as the shortest timeout that can be set, a second."""
    pause = threading.Event()
    for _ in range(1000):
        if check():
            return True
        pause.wait(0.02)
    return False


def serves(daemon: Daemon) -> bool:
    """Does it hear an honest host?"""
    with Rogue(daemon.port) as honest:
        honest.greet()
    return True


def empty(daemon: Daemon) -> bool:
    """Is nothing of anybody's left?"""
    here = daemon.service._relocations
    return not here.under_way() and not daemon.host.domains and not here.reserved_mib()


# -- slowly ----------------------------------------------------------------------------------------------------

HANDSHAKES = {
    "a message": b"x",
    "blank lines": b"\n",
    "help": b"help\n",
    "TLS": b"\x16",
    "a lane": b"(",
}


@pytest.mark.parametrize("what", HANDSHAKES)
def test_an_introduction_is_not_prolonged_by_dripping(make: Make, what: str) -> None:
    daemon = make(handshake_timeout_s=0.5)
    with Rogue(daemon.port) as rogue:
        assert rogue.drip(HANDSHAKES[what])
    assert serves(daemon)


@pytest.mark.parametrize("what", ["x", "\n", "help\n"])
def test_who_has_introduced_itself_must_come_to_the_point(make: Make, what: str) -> None:
    daemon = make(idle_timeout_s=1.0)
    with Rogue(daemon.port) as rogue:
        rogue.greet()
        assert rogue.drip(what.encode())
    assert serves(daemon)


def test_only_whole_messages_count_as_life_during_a_relocation(make: Make) -> None:
    daemon = make(idle_timeout_s=1.0)
    with Rogue(daemon.port) as rogue:
        rogue.accepted(proposal())
        threading.Thread(target=rogue.drip, args=(b" ",), daemon=True).start()
        assert eventually(lambda: empty(daemon))
    assert marks(daemon) == [Mark.ABORTED]


def test_a_half_closed_connection_is_a_closed_one(standing: Daemon) -> None:
    with Rogue(standing.port) as rogue:
        rogue.greet()
        rogue.sock.shutdown(socket.SHUT_WR)
        assert rogue.hear_last() is None


def test_a_source_that_sends_nothing_loses_its_place(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """It says that it is there all the time; its lanes bring nothing."""
    monkeypatch.setattr(stall, "PATIENCE_MIN_S", 0.0)
    daemon = make(idle_timeout_s=1.0)
    with Rogue(daemon.port) as rogue:
        wish = proposal()
        accept = rogue.accepted(wish)
        with opened_lane(daemon.port, wish.relocation, accept.token):
            rogue.hear_kind(Receiving)
            while not isinstance(message := rogue.hear(), Abort):
                assert message is not None
                rogue.say(ProgressNote(0, 0, 0))
            assert message.code == "timeout"
            assert "nothing came over the lanes" in message.text
    assert eventually(lambda: empty(daemon))


# -- many ------------------------------------------------------------------------------------------------------


def test_one_host_cannot_take_the_place_of_all(make: Make) -> None:
    daemon = make(max_connections=20, max_connections_per_host=8, max_handshakes=20)
    held = [Rogue(daemon.port, OTHER_HOST) for _ in range(12)]
    for rogue in held:
        rogue.say(HELLO)
    heard = [rogue.hear() for rogue in held]
    assert sum(isinstance(answer, Hello) for answer in heard) == 8
    assert heard.count(None) == 4
    assert serves(daemon)
    for rogue in held:
        rogue.sock.close()


def test_those_who_say_nothing_do_not_take_the_place_of_those_who_do(make: Make) -> None:
    daemon = make(max_connections=10, max_handshakes=3)
    silent = [Rogue(daemon.port, OTHER_HOST) for _ in range(3)]
    assert eventually(lambda: _count(daemon) == 3)
    with Rogue(daemon.port, OTHER_HOST) as one_more:
        assert one_more.hear() is None
    silent[0].greet()
    assert serves(daemon), "who has introduced itself makes room"
    for rogue in silent:
        rogue.sock.close()


def _count(daemon: Daemon) -> int:
    (port,) = [p for p in daemon.service._ports if hasattr(p.factory, "crowd")]
    return int(port.factory.crowd.count)


def test_a_reload_changes_the_limits(make: Make) -> None:
    daemon = make()
    assert serves(daemon)
    daemon.set_config(max_connections=1)
    with Rogue(daemon.port) as first, Rogue(daemon.port) as second:
        first.greet()
        second.say(HELLO)
        assert second.hear() is None


def test_a_flood_costs_little_and_honest_domains_move_meanwhile(make: Make) -> None:
    """Thousands of connections, of a host that is allowed and of one that is not."""
    source, target = make(hosts_allow=(r"127\.0\.0\.1",)), make(handshake_timeout_s=1.0)
    source.client.call("create", config=DOMAIN_FILE, source="web.cfg")
    before = psutil.Process().memory_full_info().uss
    floods = [_flood(target.port, address) for address in (OTHER_HOST, "127.0.0.3")]
    try:
        assert source.migrate(target.port)["outcome"] == "completed"
        arrived(source, target)
        assert target.migrate(source.port)["outcome"] == "completed"
    finally:
        counts = [int(flood.communicate("", 60)[0]) for flood in floods]
    assert min(counts) >= FLOOD
    grown = psutil.Process().memory_full_info().uss - before
    assert grown < 48 << 20, f"{grown >> 20} MiB more"
    assert eventually(lambda: _count(target) == 0)
    assert serves(target)


def _flood(port: int, address: str) -> subprocess.Popen[str]:
    arguments = [sys.executable, "-m", "tests.daemon.flood", str(port), address, str(FLOOD)]
    return subprocess.Popen(arguments, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def test_a_host_that_does_not_read_is_cut_off(make: Make) -> None:
    daemon = make()
    wish = proposal()
    with Rogue(daemon.port) as rogue:
        rogue.accepted(wish)
        (relocation,) = daemon.service._relocations.under_way()
        dialogue = relocation._dialogue
        assert dialogue is not None
        before = psutil.Process().memory_full_info().uss
        for _ in range(1000):
            call(dialogue.send_bytes, b"x" * 65536)
        assert psutil.Process().memory_full_info().uss - before < 16 << 20
        assert eventually(lambda: empty(daemon))
    assert "does not read" in relocation._reason().text


@pytest.mark.parametrize("line", ["\n", " \n", "help\n"])
def test_too_many_messages_at_once_are_a_breach(standing: Daemon, line: str) -> None:
    with Rogue(standing.port) as rogue:
        rogue.say(line.encode() * 2000)
        heard = rogue.hear_all()
    assert b"bytes in a second" in heard.splitlines()[-1]
    assert serves(standing)


# -- giant announcements ---------------------------------------------------------------------------------------

_DISKS = tuple(Disk(path=f"/srv/{n}", vdev=f"xvd{chr(97 + n)}") for n in range(17))
_VIFS = tuple(Vif(mac=f"02:00:00:00:00:{n:02x}", bridge="br0") for n in range(9))
GIANTS: dict[str, Any] = {
    "memory that no host has": domain(memory_mib=1 << 20),
    "memory beyond all bounds": domain(memory_mib=1 << 40),
    "processors beyond all bounds": domain(vcpus=100_000),
    "too many disks": domain(disks=_DISKS),
    "too many interfaces": domain(vifs=_VIFS),
    "a huge kernel": domain(kernel=BootFile("/boot/vmlinuz", "ab" * 32, 1 << 39)),
    "a kernel beyond all bounds": domain(kernel=BootFile("/boot/vmlinuz", "ab" * 32, 1 << 60)),
    "a kernel whose digest is a path": domain(kernel=BootFile("/boot/vmlinuz", "../../../etc/passwd", 6)),
    "a long command line": domain(kernel=BootFile("/boot/vmlinuz", "ab" * 32, 6), extra="x" * 60_000),
    "a name that is a path": domain(name="../web"),
    "a disk outside": domain(disks=(Disk(path="/etc/shadow", vdev="xvda"),)),
    "a disk with dots": domain(disks=(Disk(path="/srv/../etc/shadow", vdev="xvda"),)),
}


@pytest.mark.parametrize("case", GIANTS)
def test_a_giant_announcement_is_refused_and_reserves_nothing(standing: Daemon, case: str) -> None:
    with Rogue(standing.port) as rogue:
        answer = rogue.ask(proposal(GIANTS[case]))
        assert isinstance(answer, Refuse | Problem), answer
    assert empty(standing)
    assert serves(standing)


@pytest.mark.parametrize(
    "change",
    [
        (b"(lanes 1)", b"(lanes 17)"),
        (b"(lanes 1)", b"(lanes 99999999999999999999)"),
        (b"(live no)", b"(live maybe)"),
        (b"(memory_mib 1)", b"(memory_mib 1)" * 3000),
        (b"(memory_mib 1)", b"(memory_mib 1e9)"),
        (b"(memory_mib 1)", b"(memory_mib -1)"),
        (b"(lanes 1)", b"(lanes 1) (surprise! yes)"),
        (b"(paused no)", b"(paused no) (cpu-words " + b"(1.0.eax 1) " * 300 + b")"),
        (b"(paused no)", b"(paused no) (disks " + b"(/a local 1 no 0)" * 65 + b")"),
    ],
)
def test_a_proposal_that_is_none_is_a_breach(standing: Daemon, change: tuple[bytes, bytes]) -> None:
    line = encode(proposal())
    assert change[0] in line
    with Rogue(standing.port) as rogue:
        assert isinstance(rogue.ask(line.replace(*change)), Problem)
        assert rogue.hear() is None
    assert empty(standing)


def test_a_kernel_without_a_digest_never_gets_a_name(standing: Daemon) -> None:
    """Its digest is what it would be called in the boot store."""
    wish = proposal(domain(kernel=BootFile("/boot/vmlinuz", "", 6)))
    with Rogue(standing.port) as rogue:
        assert isinstance(rogue.ask(wish), Refuse)
    assert eventually(lambda: empty(standing))
    assert not list(standing.places.boot_dir.iterdir())


def test_no_more_domains_arrive_than_the_configuration_allows(make: Make) -> None:
    daemon = make(max_incoming=2)
    held = [Rogue(daemon.port) for _ in range(3)]
    answers = [rogue.ask(proposal(domain(name=f"d{n}"))) for n, rogue in enumerate(held)]
    assert [type(answer) for answer in answers] == [Accept, Accept, Refuse]
    for rogue in held:
        rogue.vanish()
    assert eventually(lambda: empty(daemon))


# -- lanes -----------------------------------------------------------------------------------------------------


def test_lanes_that_nobody_waits_for_are_refused(make: Make) -> None:
    daemon = make(lanes=2)
    with Rogue(daemon.port) as rogue:
        wish = proposal(lanes=2)
        token = rogue.accepted(wish).token
        own = wish.relocation
        wrong = [
            lane(daemon.port, own, token[::-1]),
            lane(daemon.port, own, token[:-2]),
            lane(daemon.port, uuid4(), token),
            lane(daemon.port, own, token, number=2),
            lane(daemon.port, own, token, number=15),
            lane(daemon.port, own, token, address=OTHER_HOST),
        ]
        for one in wrong:
            answer = one.hear()
            assert isinstance(answer, Problem), answer
            assert "no relocation waits" in answer.text
            assert one.hear() is None
        with opened_lane(daemon.port, own, token), lane(daemon.port, own, token) as twice:
            assert isinstance(twice.hear(), Problem)
            with lane(daemon.port, own, token, number=1) as last:
                assert isinstance(last.hear(), Ready), "the right one is taken in spite of all that"
                rogue.hear_kind(Receiving)
            with lane(daemon.port, own, token, number=1) as late:
                assert isinstance(late.hear(), Problem)
    assert eventually(lambda: empty(daemon))


def test_a_lane_that_does_not_wait_for_its_answer_is_refused(make: Make) -> None:
    daemon = make()
    with Rogue(daemon.port) as rogue:
        wish = proposal()
        token = rogue.accepted(wish).token
        with Rogue(daemon.port) as hasty:
            hasty.say(Lane(wish.relocation, token, 0), b"rlpF")
            assert isinstance(hasty.hear(), Problem)


# -- replays ---------------------------------------------------------------------------------------------------


def test_a_second_question_before_the_answer_is_a_breach(make: Make) -> None:
    """Both would end up in one dialogue, and one of them would never hear that it is lost."""
    daemon = make()
    with Rogue(daemon.port) as rogue:
        rogue.greet()
        rogue.say(proposal(domain("one")), proposal(domain("two")))
        last = rogue.hear_last()
        assert isinstance(last, Problem)
        assert "one question at a time" in last.text
    assert eventually(lambda: empty(daemon))


def test_the_id_of_a_relocation_is_used_once(make: Make) -> None:
    """A record that somebody may still ask about is not replaced, whoever proposes its id again."""
    daemon = make()
    wish = proposal()
    with Rogue(daemon.port) as rogue, Rogue(daemon.port, OTHER_HOST) as thief:
        token = rogue.accepted(wish).token
        assert isinstance(thief.ask(evolve(wish, domain=domain("other"))), Refuse)
    assert eventually(lambda: empty(daemon))
    assert marks(daemon) == [Mark.ABORTED]
    with Rogue(daemon.port, OTHER_HOST) as thief:
        assert isinstance(thief.ask(wish), Refuse)
    with Rogue(daemon.port) as rogue:
        standing = rogue.ask(Inquire(wish.relocation, token))
        assert standing == Standing(wish.relocation, Decision.ABORTED)
    with Rogue(daemon.port) as rogue:
        assert rogue.ask(Inquire(wish.relocation, token[::-1])) == Standing(wish.relocation, Decision.UNHEARD)


@pytest.mark.parametrize(
    "early", [Commit(), Prepared("ab" * 16, 1), Standing(UUID(int=1), Decision.COMMITTED)]
)
def test_a_decision_that_comes_too_early_ends_the_relocation(make: Make, early: Any) -> None:
    daemon = make()
    with Rogue(daemon.port) as rogue:
        rogue.accepted(proposal())
        rogue.say(early)
        abort = rogue.hear_kind(Abort)
        assert isinstance(abort, Abort)
        assert abort.code == "protocol"
        assert "has no meaning at this point (reserved)" in abort.text
    assert eventually(lambda: empty(daemon))
    assert marks(daemon) == [Mark.ABORTED]


def test_few_proposals_are_judged_at_a_time(standing: Daemon, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each may look at disks and start a hypervisor for a question; the others wait for their turn."""
    began: list[str] = []
    gate: Deferred[None] = Deferred()
    real = relocations.target_facts

    async def slow(context: Any, domain: DomainConfig, **more: Any) -> Any:
        began.append(domain.name)
        if not gate.called:
            waiting: Deferred[None] = Deferred()
            gate.addCallback(lambda _: waiting.callback(None))
            await waiting
        return await real(context, domain, **more)

    monkeypatch.setattr(relocations, "target_facts", slow)
    rogues = [Rogue(standing.port) for _ in range(7)]
    for number, rogue in enumerate(rogues):
        rogue.greet()
        rogue.say(proposal(domain(f"d{number}"), intent=Intent.CHECK))
    assert eventually(lambda: len(began) == 4)
    assert serves(standing)
    assert len(began) == 4
    call(gate.callback, None)
    assert all(isinstance(rogue.hear(), Verdicts) for rogue in rogues)
    for rogue in rogues:
        rogue.sock.close()


# -- more than announced ---------------------------------------------------------------------------------------


def test_a_stream_longer_than_announced_ends_the_relocation(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The domain has 1 MiB, the peer sends two, of a stream that the hypervisor would take."""
    monkeypatch.setattr(limits, "OTHER_BYTES_MAX", 0)
    daemon = make()
    wish = proposal()
    with Rogue(daemon.port) as rogue:
        token = rogue.accepted(wish).token
        with opened_lane(daemon.port, wish.relocation, token) as taken:
            rogue.hear_kind(Receiving)
            page = (1).to_bytes(8, "big") * 128
            stream = b"MEMGUEST" + (4).to_bytes(4, "big") + (b"P" + bytes(4) + page) * 2048
            for sequence in range(8):
                part = stream[sequence << 18 : (sequence + 1) << 18]
                taken.say(span_batch(part, sequence))
            abort = rogue.hear_kind(Abort)
            assert isinstance(abort, Abort)
            assert abort.code == "stream"
            assert "the most that the domain announced can take" in abort.text
    assert eventually(lambda: empty(daemon))


def test_checking_reserves_nothing(standing: Daemon) -> None:
    with Rogue(standing.port) as rogue:
        rogue.greet()
        for _ in range(20):
            rogue.say(proposal(intent=Intent.CHECK))
            assert rogue.hear() is not None
        assert empty(standing)
    assert marks(standing) == []
