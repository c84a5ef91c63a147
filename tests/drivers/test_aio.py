"""The bridge to asyncio and the worker threads."""

from __future__ import annotations

import asyncio
import threading

import pytest
from twisted.internet.defer import CancelledError, Deferred
from twisted.logger import ILogObserver, LogEvent, globalLogPublisher
from zope.interface import implementer

from relocd.drivers.aio import OneShot, awaited, background
from relocd.drivers.worker import Worker
from tests.reactor import call, run


def test_results_and_errors_come_through() -> None:
    async def seven() -> int:
        await asyncio.sleep(0)
        return 7

    async def fail() -> None:
        raise ValueError("no")

    async def both() -> int:
        with pytest.raises(ValueError, match="no"):
            await awaited(fail())
        return await awaited(seven())

    assert run(both()) == 7


def test_cancelling_the_caller_cancels_what_it_awaits() -> None:
    ended: list[str] = []

    async def wait() -> None:
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            ended.append("cancelled")
            raise

    async def caller() -> None:
        await awaited(wait())

    async def scene() -> None:
        deferred = Deferred.fromCoroutine(caller())
        await awaited(asyncio.sleep(0))
        deferred.cancel()
        with pytest.raises(CancelledError):
            await deferred

    run(scene())
    assert ended == ["cancelled"]


def test_what_fails_in_the_background_is_logged_and_ends() -> None:
    logged: list[LogEvent] = []

    @implementer(ILogObserver)
    def observe(event: LogEvent) -> None:
        logged.append(event)

    async def fail() -> None:
        raise ValueError("no")

    async def scene() -> None:
        await background(fail(), "a test's own failure")

    globalLogPublisher.addObserver(observe)
    try:
        run(scene())
    finally:
        globalLogPublisher.removeObserver(observe)
    assert [event["what"] for event in logged if "log_failure" in event] == ["a test's own failure"]


def test_a_one_shot_lets_everyone_through_before_and_after() -> None:
    heard: list[str] = []

    async def scene() -> tuple[bool, bool, bool]:
        shot = OneShot()
        shot.then(lambda: heard.append("before"))
        early = await shot.wait(0.01)
        waiting = Deferred.fromCoroutine(shot.wait())
        shot.fire()
        shot.fire()
        shot.then(lambda: heard.append("after"))
        return early, await waiting, await shot.wait(0.01)

    assert run(scene()) == (False, True, True)
    assert heard == ["before", "after"]


def test_a_worker_keeps_the_order_and_one_thread() -> None:
    async def scene() -> tuple[list[int], set[str]]:
        worker = Worker("numbers")
        done: list[int] = []
        names: set[str] = set()

        def note(number: int) -> None:
            done.append(number)
            names.add(threading.current_thread().name)

        waiting = [Deferred.fromCoroutine(worker.run(note, number)) for number in range(20)]
        for deferred in waiting:
            await deferred
        worker.stop()
        return done, names

    done, names = run(scene())
    assert done == list(range(20))
    assert len(names) == 1
    assert call(threading.current_thread).name not in names


def test_a_worker_brings_errors_back() -> None:
    async def scene() -> None:
        worker = Worker("broken")
        try:
            await worker.run(int, "x")
        finally:
            worker.stop()

    with pytest.raises(ValueError, match="invalid literal"):
        run(scene())
