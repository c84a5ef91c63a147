"""Domains that leave one host move a few at a time; the others wait for their turn."""

from __future__ import annotations

from uuid import uuid4

from hypothesis import given
from hypothesis import strategies as st

from relocd.daemon.turns import Turns, turns
from tests.daemon.rig import DOMAIN, DOMAIN_FILE, Daemon, settled
from tests.daemon.test_steering import NEVER_MS, SECOND, Moving, make_restless
from tests.reactor import call


def test_one_for_every_two_processors_and_never_none() -> None:
    assert [turns(cores) for cores in (1, 2, 3, 4, 64)] == [1, 1, 1, 2, 32]


@given(st.lists(st.tuples(st.sampled_from(["come", "leave", "limit"]), st.integers(0, 5))))
def test_never_too_many_move_nobody_waits_for_a_free_place_and_order_is_kept(
    steps: list[tuple[str, int]],
) -> None:
    names = [uuid4() for _ in range(6)]
    limit = 2
    queue = Turns(lambda: limit)
    moving: set[int] = set()
    line: list[int] = []
    for step, number in steps:
        if step == "come" and number not in moving and number not in line:
            line.append(number)
            queue.come(names[number]).addCallback(lambda _, number=number: _begin(moving, line, number))
        elif step == "leave":
            if number in line:
                line.remove(number)
            moving.discard(number)
            before = set(moving)
            queue.leave(names[number])
            moving.discard(number)  # who leaves the line is woken, too
            assert before <= moving
        elif step == "limit":
            limit = number + 1
            queue.look()
        assert not line or len(moving) >= limit
        assert queue.has_to_wait() == (len(moving) >= limit)


def _begin(moving: set[int], line: list[int], number: int) -> None:
    if number in line:
        assert line[0] == number
        line.remove(number)
    moving.add(number)


def begin_two(source: Daemon, target: Daemon) -> tuple[Moving, Moving]:
    """Domain ``web``, which takes its time, and ``db``, which waits for its turn."""
    source.set_config(outgoing_at_once=1)
    second = DOMAIN_FILE.replace(str(DOMAIN), str(SECOND)).replace('"web"', '"db"')
    source.client.call("create", config=second, source="db.cfg")
    make_restless(source, NEVER_MS)
    web = Moving(source, target.port)
    assert settled(lambda: phases(source) == {"web": "memory"}, source)
    db = Moving(source, target.port, domain="db")
    assert settled(lambda: phases(source) == {"web": "memory", "db": "queue"}, source)
    return web, db


def phases(daemon: Daemon) -> dict[str, str]:
    """Where those that are under way are."""
    return {row["domain"]: row["phase"] for row in daemon.client.call("status")["relocations"]}


def test_the_second_waits_for_its_turn_and_then_moves(source: Daemon, target: Daemon) -> None:
    web, db = begin_two(source, target)
    assert [row.get("domain") for row in target.client.call("status")["relocations"]] == ["web"]
    assert source.states()["db"] == "running"
    make_restless(source, 0)
    outcomes = [moving.end() for moving in (web, db)]
    assert [outcome["outcome"] for outcome in outcomes] == ["completed", "completed"]
    assert set(target.states()) == {"web", "db"}
    (ended,) = source.client.call("history", relocation=outcomes[1]["relocation"])["relocations"]
    names = [moment["phase"] for moment in ended["timeline"] if moment["kind"] == "phase"]
    assert names[:3] == ["queue", "connect", "preflight"]


def test_one_that_waits_can_be_cancelled_and_the_next_does_not_wait_for_it(
    source: Daemon, target: Daemon
) -> None:
    web, db = begin_two(source, target)
    source.client.call("cancel", relocation="db")
    assert db.end()["code"] == "cancelled"
    assert phases(source) == {"web": "memory"}
    source.client.call("cancel", relocation="web")
    assert web.end()["code"] == "cancelled"
    assert source.migrate(target.port, domain="db")["outcome"] == "completed"


def test_the_time_that_one_may_take_begins_with_its_turn(source: Daemon, target: Daemon) -> None:
    source.set_config(outgoing_at_once=1)
    web, db = begin_two(source, target)
    make_restless(source, NEVER_MS, SECOND)
    source.client.call("cancel", relocation="db")
    assert db.end()["code"] == "cancelled"
    brief = Moving(source, target.port, domain="db", max_duration_s=1)
    assert settled(lambda: phases(source).get("db") == "queue", source)
    source.client.call("cancel", relocation="web")
    assert web.end()["code"] == "cancelled"
    outcome = brief.end()
    assert "not done within 1 s" in outcome["error"]
    assert "queue" not in outcome["error"]


def test_a_higher_limit_lets_those_move_who_wait(source: Daemon, target: Daemon) -> None:
    web, db = begin_two(source, target)
    source.set_config(outgoing_at_once=2)
    call(source.service._relocations.share)
    assert db.end()["outcome"] == "completed"
    source.client.call("cancel", relocation="web")
    assert web.end()["code"] == "cancelled"
