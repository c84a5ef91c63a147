"""A driver in a process that dies at a chosen effect on its host, with no clearing up at all.

:func:`main` forks for each request on standard input (a Case, pickled, in hexadecimal, one a
line) and answers with one line: what the child told, a Told in hexadecimal likewise. An effect is what a driver does
to the host: each call in a worker thread, each command to QEMU, each signal. Nothing in the driver knows of this.

Some effects follow what QEMU tells, so their order is not the same in every run; an effect is therefore known by its
name and by how many of that name came before.
"""

from __future__ import annotations

import collections
import os
import pickle
import signal
import sys
from collections.abc import Awaitable, Callable
from typing import Any, NamedTuple

from attrs import evolve, frozen
from twisted.internet.defer import Deferred

from relocd.config import Config
from relocd.drivers.base import DriverPaths
from relocd.drivers.qemu.driver import QemuDriver
from relocd.drivers.qemu.process import Process
from relocd.drivers.qemu.qmp import Monitor
from relocd.drivers.worker import Worker
from relocd.model import DomainConfig


class Effect(NamedTuple):
    """What is done to the host, and how many of that name came before."""

    name: str
    number: int


@frozen
class Case:
    """A story, and where it ends: before or after an effect; at its own end if there is none."""

    story: str
    paths: DriverPaths
    config: DomainConfig
    effect: Effect | None = None
    after: bool = False


@frozen
class Told:
    """What came to pass: the effects in the order in which they began, those that came to their end, and whether
    the child died of the chosen one."""

    begun: tuple[Effect, ...]
    ended: frozenset[Effect]
    died: bool


class Death:
    """Tells of effects once it is armed, and kills this process at the one that was chosen."""

    def __init__(self, case: Case, told: int) -> None:
        self._case = case
        self._told = told
        self._numbers: collections.Counter[str] = collections.Counter()
        self._armed = False

    def arm(self) -> None:
        """Effects count from now on."""
        self._armed = True

    def wrap_all(self) -> None:
        """Have every effect of a driver pass by here."""
        self._wrap_async(Worker, "run", lambda _, function, *args: str(function.__name__))
        self._wrap_async(Monitor, "execute", lambda _, command, *args: str(command))
        self._wrap(Process, "terminate")
        self._wrap(Process, "kill")

    def _wrap_async(self, owner: type, name: str, what: Callable[..., str]) -> None:
        original: Callable[..., Awaitable[Any]] = vars(owner)[name]

        async def wrapped(*args: Any, **kwargs: Any) -> Any:
            effect = self._next(what(*args))
            self._come_to(effect, after=False)
            result = await original(*args, **kwargs)
            self._come_to(effect, after=True)
            return result

        setattr(owner, name, wrapped)

    def _wrap(self, owner: type, name: str) -> None:
        original: Callable[..., Any] = vars(owner)[name]

        def wrapped(*args: Any) -> Any:
            effect = self._next(name)
            self._come_to(effect, after=False)
            result = original(*args)
            self._come_to(effect, after=True)
            return result

        setattr(owner, name, wrapped)

    def _next(self, name: str) -> Effect | None:
        if not self._armed:
            return None
        self._numbers[name] += 1
        return Effect(name, self._numbers[name] - 1)

    def _come_to(self, effect: Effect | None, *, after: bool) -> None:
        if effect is None:
            return
        os.write(self._told, f"{effect.name} {effect.number} {int(after)}\n".encode())
        if (effect, after) == (self._case.effect, self._case.after):
            os.kill(os.getpid(), signal.SIGKILL)


async def _create(driver: QemuDriver, config: DomainConfig, death: Death) -> None:
    death.arm()
    await driver.create(config)


async def _destroy(driver: QemuDriver, config: DomainConfig, death: Death) -> None:
    await driver.create(config)
    death.arm()
    await driver.destroy(config.uuid)


async def _receive_and_discard(driver: QemuDriver, config: DomainConfig, death: Death) -> None:
    facts = (await driver.create(evolve(config, disks=(), vifs=()), paused=True)).config
    await driver.destroy(config.uuid)
    incoming = driver.incoming(evolve(facts, disks=config.disks, vifs=config.vifs))
    death.arm()
    (await incoming.prepare()).close()
    await incoming.discard()


async def _send_and_release(driver: QemuDriver, config: DomainConfig, death: Death) -> None:
    await driver.create(config)
    outgoing = driver.outgoing(config.uuid)
    death.arm()
    with await outgoing.start(live=True, downtime_limit_ms=20):
        await outgoing.release()


STORIES: dict[str, Callable[[QemuDriver, DomainConfig, Death], Awaitable[None]]] = {
    "create": _create,
    "destroy": _destroy,
    "receive and discard": _receive_and_discard,
    "send and release": _send_and_release,
}


def _play(case: Case, told: int) -> None:
    """Tell the story to its end, in a process of its own."""
    from twisted.internet import asyncioreactor

    asyncioreactor.install()
    from twisted.internet import reactor

    death = Death(case, told)
    death.wrap_all()

    async def story() -> None:
        driver = QemuDriver(Config(), case.paths)
        await driver.start()
        await STORIES[case.story](driver, case.config, death)
        await driver.stop()

    def begin() -> None:
        Deferred.fromCoroutine(story()).addCallbacks(lambda _: os._exit(0), lambda failure: _fail(failure))

    reactor.callWhenRunning(begin)  # type: ignore[attr-defined] # the module is the reactor
    reactor.run()  # type: ignore[attr-defined] # likewise


def _fail(failure: Any) -> None:
    failure.printTraceback(file=sys.stderr)
    sys.stderr.flush()
    os._exit(1)


def _read(text: str, *, died: bool) -> Told:
    words = [line.split() for line in text.splitlines()]
    passed = [(Effect(name, int(number)), bool(int(after))) for name, number, after in words]
    return Told(
        tuple(effect for effect, after in passed if not after),
        frozenset(effect for effect, after in passed if after),
        died,
    )


def main() -> None:
    for line in sys.stdin:
        case: Case = pickle.loads(bytes.fromhex(line))
        reading, writing = os.pipe()
        child = os.fork()
        if not child:
            _play(case, writing)
        os.close(writing)
        with os.fdopen(reading) as told:
            text = told.read()
        _, status = os.waitpid(child, 0)
        died = os.WIFSIGNALED(status)
        assert died or status == 0, "the story failed"
        print(pickle.dumps(_read(text, died=died)).hex(), flush=True)
