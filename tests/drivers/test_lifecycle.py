"""What becomes of a domain whose guest ends: the tables, in words."""

from __future__ import annotations

from uuid import uuid4

import pytest

from relocd.drivers.qemu.lifecycle import ENDED_AS, Cause, action, action_option, action_when_found
from relocd.model import Action, DomainConfig

D, R, P = Action.DESTROY, Action.RESTART, Action.PRESERVE


def config(poweroff: Action = D, reboot: Action = R, crash: Action = D) -> DomainConfig:
    return DomainConfig("web", uuid4(), 16, on_poweroff=poweroff, on_reboot=reboot, on_crash=crash)


@pytest.mark.parametrize(
    ("actions", "expected"),
    [
        ((D, R, D), "reboot=reset,shutdown=poweroff,panic=shutdown"),
        ((R, R, D), "reboot=reset,shutdown=pause,panic=shutdown"),
        ((P, R, D), "reboot=reset,shutdown=pause,panic=shutdown"),
        ((D, D, D), "reboot=shutdown,shutdown=poweroff,panic=shutdown"),
        ((D, P, D), "reboot=shutdown,shutdown=pause,panic=shutdown"),
        ((D, R, R), "reboot=reset,shutdown=poweroff,panic=pause"),
        ((D, R, P), "reboot=reset,shutdown=poweroff,panic=pause"),
    ],
)
def test_what_qemu_does_by_itself(actions: tuple[Action, Action, Action], expected: str) -> None:
    assert action_option(config(*actions)) == expected


def test_each_cause_has_its_setting() -> None:
    settings = config(P, D, R)
    assert [action(settings, cause) for cause in (Cause.POWEROFF, Cause.REBOOT, Cause.CRASH)] == [P, D, R]
    assert set(ENDED_AS) == set(Cause)


@pytest.mark.parametrize(
    ("settings", "cause", "expected"),
    [
        (config(D, P, D), Cause.POWEROFF, P),
        (config(P, D, D), Cause.POWEROFF, P),
        (config(R, D, D), Cause.POWEROFF, R),
        (config(P, P, D), Cause.CRASH, D),
        (config(D, R, R), Cause.CRASH, R),
    ],
)
def test_what_might_have_to_be_preserved_is(settings: DomainConfig, cause: Cause, expected: Action) -> None:
    assert action_when_found(settings, cause) is expected
