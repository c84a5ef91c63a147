"""What QEMU is told to steer a migration."""

from __future__ import annotations

import pytest

from relocd.convergence.verdict import THROTTLE_PERCENT
from relocd.drivers.qemu.migration import steering


def test_unless_asked_for_throttling_is_idle() -> None:
    told = steering(20, 0)
    assert told["downtime-limit"] == 20
    assert told["max-cpu-throttle"] == 1
    assert told["throttle-trigger-threshold"] == 100


@pytest.mark.parametrize("percent", [0, *THROTTLE_PERCENT])
def test_every_step_is_one_that_qemu_takes(percent: int) -> None:
    """QEMU's ranges (migrate_params_check): 1 to 99, the maximum not below the first step; 1 to 100 the trigger."""
    told = steering(20, percent)
    assert 1 <= told["cpu-throttle-initial"] <= told["max-cpu-throttle"] <= 99
    assert 1 <= told["cpu-throttle-increment"] <= 99
    assert 1 <= told["throttle-trigger-threshold"] <= 100
    assert told["max-cpu-throttle"] == max(1, percent)
