"""The helper that runs coroutines in tests: results, errors, time-outs, children."""

from __future__ import annotations

import threading

import pytest
from twisted.internet.defer import Deferred
from twisted.internet.protocol import ProcessProtocol
from twisted.python.failure import Failure

from tests.reactor import call, run


def test_result_comes_back() -> None:
    async def answer() -> int:
        return 42

    assert run(answer()) == 42


def test_error_comes_back() -> None:
    async def fail() -> None:
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        run(fail())


def test_call_is_in_the_reactor_thread() -> None:
    assert call(threading.current_thread).name == "reactor"


def test_timeout_cancels_and_names_the_coroutine() -> None:
    cleaned: list[str] = []

    async def hang() -> None:
        try:
            await Deferred()
        finally:
            cleaned.append("yes")

    with pytest.raises(TimeoutError, match="hang did not end"):
        run(hang(), timeout_s=0.05)
    assert cleaned == ["yes"]


def test_a_timeout_of_the_coroutine_itself_is_not_ours() -> None:
    async def fail() -> None:
        raise TimeoutError("its own")

    with pytest.raises(TimeoutError, match="its own"):
        run(fail())


def test_end_of_a_child_is_noticed_without_pipes() -> None:
    class Child(ProcessProtocol):
        def __init__(self) -> None:
            self.ended: Deferred[int | None] = Deferred()

        def processEnded(self, reason: Failure) -> None:
            self.ended.callback(getattr(reason.value, "exitCode", None))

    async def child() -> int | None:
        from twisted.internet import reactor

        protocol = Child()
        reactor.spawnProcess(protocol, "/bin/false", ["false"], childFDs={})
        return await protocol.ended

    assert run(child()) == 1
