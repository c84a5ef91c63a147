"""How two hosts agree on the hypervisor's channels, each by what it knows."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any
from uuid import uuid4

import pytest
from attrs import evolve

from relocd.config import Config
from relocd.config.model import Compression
from relocd.daemon.connect import channels_towards
from relocd.daemon.opening import _propose
from relocd.errors import ProtocolError
from relocd.pages.channel_count import CHANNELS, LIMIT_BYTES_S_MIN
from relocd.preflight.facts import SourceFacts
from relocd.wire.messages import Accept, Message
from tests.daemon.rig import Daemon
from tests.daemon.rogue import Rogue, proposal
from tests.reactor import call, run

VERSION = "7.2.22"


@pytest.mark.parametrize(
    ("theirs", "ours", "version", "configured", "agreed"),
    [
        (4, 8, VERSION, None, 4),
        (8, 8, VERSION, None, CHANNELS),
        (8, 8, VERSION, 6, 6),
        (8, 3, VERSION, 6, 3),
        (4, 8, VERSION, 0, 0),
        (4, 0, VERSION, 4, 0),
        (0, 8, VERSION, 4, 0),
        (4, 8, "7.2.21", 4, 0),
        (4, 8, "", 4, 0),
    ],
)
def test_a_target_takes_what_both_can_and_want(
    target: Daemon,
    monkeypatch: pytest.MonkeyPatch,
    theirs: int,
    ours: int,
    version: str,
    configured: int | None,
    agreed: int,
) -> None:
    driver = target.service._context.driver
    facts = evolve(call(driver.facts), version=VERSION, channels_max=ours)
    monkeypatch.setattr(driver, "facts", lambda: facts)
    target.set_config(channels=configured)
    what = proposal(channels=theirs, lanes=2, source=SourceFacts(hypervisor_version=version))
    with Rogue(target.port) as rogue:
        accept = rogue.accepted(what)
        assert accept.channels == agreed
        assert accept.lanes == 1 + agreed if agreed else accept.lanes <= 2


@pytest.mark.parametrize(
    ("config", "most", "limit_bytes_s", "channels"),
    [
        (Config(), 8, 0, CHANNELS),
        (Config(), 2, 0, 2),
        (Config(), 0, 0, 0),
        (Config(), 8, LIMIT_BYTES_S_MIN - 1, 0),
        (Config(channels=3), 8, LIMIT_BYTES_S_MIN - 1, 3),
        (Config(channels=3), 2, 0, 2),
        (Config(compression=Compression.NONE), 8, 0, 0),
        (Config(channels=3, compression=Compression.NONE), 8, 0, 0),
    ],
)
def test_a_host_is_for_so_many(config: Config, most: int, limit_bytes_s: int, channels: int) -> None:
    dialogue: Any = SimpleNamespace(address="127.0.0.1")  # whose interface has no speed
    assert run(channels_towards(config, dialogue, most, limit_bytes_s)) == channels


@pytest.mark.parametrize(
    ("channels", "lanes", "fits"),
    [
        (4, 5, True),
        (2, 3, True),
        (0, 2, True),
        (0, 3, False),
        (4, 4, False),
        (4, 6, False),
        (5, 6, False),
    ],
)
def test_a_source_believes_no_answer_that_does_not_fit(channels: int, lanes: int, fits: bool) -> None:
    asked = proposal(channels=4, lanes=2)
    answer = Accept(asked.relocation, "00", lanes, (), (), channels=channels)
    dialogue: Any = Answering(lambda: answer)
    if fits:
        assert run(_propose(dialogue, asked, 1.0)) == answer
    else:
        with pytest.raises(ProtocolError, match="accepted something else than was proposed"):
            run(_propose(dialogue, asked, 1.0))


def test_nor_one_for_another_relocation() -> None:
    dialogue: Any = Answering(lambda: Accept(uuid4(), "00", 1, (), ()))
    with pytest.raises(ProtocolError, match="accepted something else"):
        run(_propose(dialogue, proposal(), 1.0))


class Answering:
    """A dialogue with a target that says one thing."""

    peer = "192.0.2.1"

    def __init__(self, answer: Callable[[], Message]) -> None:
        self._answer = answer

    def send(self, message: Message) -> None:
        pass

    async def receive(self, timeout_s: float) -> Message:
        return self._answer()
