"""What a relocation may take: the configuration's limits or less, never more."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relocd.config import Config
from relocd.config.model import MIB
from relocd.convergence.terms import Terms, Wishes, agree
from relocd.errors import UsageError

LIMITED = Config(max_bandwidth_bytes_s=50 * MIB, max_downtime_ms=300, max_duration_s=60.0)


def test_without_wishes_the_configuration_holds() -> None:
    terms = agree(Config(max_rounds=9, throttle=True, downtime_ms=5), Wishes())
    assert terms == Terms(downtime_ms=5, max_rounds=9, throttle=True)
    assert agree(LIMITED, Wishes()).max_bandwidth_bytes_s == 50 * MIB


def test_less_may_be_asked_for() -> None:
    terms = agree(LIMITED, Wishes(MIB, 100, 2.5))
    assert (terms.max_bandwidth_bytes_s, terms.max_downtime_ms, terms.max_duration_s) == (MIB, 100, 2.5)
    assert terms.allowed_downtime_ms == 300


def test_the_aim_is_never_above_the_maximum() -> None:
    assert agree(Config(), Wishes(max_downtime_ms=10)).downtime_ms == 10
    assert agree(Config(max_downtime_ms=15), Wishes()).downtime_ms == 15


@pytest.mark.parametrize(
    ("wishes", "text", "hint"),
    [
        (
            {"max_bandwidth_bytes_s": 51 * MIB},
            "of at most 50 MiB/s, and 51 MiB/s was asked",
            "-max-bandwidth",
        ),
        ({"max_bandwidth_bytes_s": 0}, "of at most 50 MiB/s, and no limit was asked", "-max-bandwidth"),
        ({"max_bandwidth_bytes_s": 50}, "must be 0 or from 65536", "50M"),
        ({"max_bandwidth_bytes_s": -1}, "must be 0 or from", ""),
        ({"max_bandwidth_bytes_s": 1 << 70}, "must be 0 or from", ""),
        ({"max_downtime_ms": 301}, "a pause of at most 300 ms, and 301 ms", "-max-downtime"),
        ({"max_downtime_ms": 0}, "from 1 to 60000 ms, not 0", ""),
        ({"max_downtime_ms": 60_001}, "from 1 to 60000 ms", ""),
        ({"max_duration_s": 61}, "a duration of at most 60 s, and 61 s", "-max-duration"),
        ({"max_duration_s": 0}, "at most 60 s, and no limit", "-max-duration"),
        ({"max_duration_s": -0.1}, "from 0 (none)", ""),
    ],
)
def test_more_is_refused_with_the_limit_and_its_name(wishes: dict[str, Any], text: str, hint: str) -> None:
    with pytest.raises(UsageError) as caught:
        agree(LIMITED, Wishes(**wishes))
    assert text in str(caught.value)
    assert hint in caught.value.hint


@given(
    st.integers(0, 1 << 41),
    st.integers(-5, 70_000),
    st.floats(-5, 1e6),
    st.integers(0, 1 << 30),
    st.integers(1, 60_000),
)
def test_no_wish_goes_beyond_the_configuration(
    bandwidth: int, downtime_ms: int, duration_s: float, allowed: int, allowed_ms: int
) -> None:
    config = Config(max_bandwidth_bytes_s=allowed, max_downtime_ms=allowed_ms, max_duration_s=60.0)
    try:
        terms = agree(config, Wishes(bandwidth, downtime_ms, duration_s))
    except UsageError:
        return
    assert not allowed or 0 < terms.max_bandwidth_bytes_s <= allowed
    assert 1 <= terms.downtime_ms <= terms.max_downtime_ms <= allowed_ms
    assert 0 < terms.max_duration_s <= 60
