"""The arithmetic of predictions: more work never takes less, nothing is negative, the hopeless is called so."""

from __future__ import annotations

import json

import pytest
from attrs import evolve
from hypothesis import given
from hypothesis import strategies as st

from relocd.model import Load
from relocd.prediction import (
    MAX_ROUNDS,
    Assumptions,
    Measured,
    Prediction,
    Verdict,
    predict,
    prediction_object,
)

MIB = 1 << 20
LIMIT_MS = 20

memories = st.integers(0, 1 << 42)
rates = st.integers(0, 1 << 40)
links = st.integers(1, 1 << 40)
limits = st.integers(0, 60_000)


@st.composite
def measurements(draw: st.DrawFn) -> Measured:
    memory_bytes = draw(memories)
    working_set_bytes = draw(st.integers(0, memory_bytes))
    return Measured(memory_bytes, draw(rates), working_set_bytes, draw(st.booleans()), draw(links))


def measured(memory_mib: int, dirty_mib_s: float, link_mib_s: float, set_mib: int | None = None) -> Measured:
    working_set_bytes = (memory_mib if set_mib is None else set_mib) * MIB
    return Measured(memory_mib * MIB, int(dirty_mib_s * MIB), working_set_bytes, False, int(link_mib_s * MIB))


def duration_s(prediction: Prediction) -> float:
    return prediction.live.duration_s if prediction.live else float("inf")


def test_a_quiet_guest_takes_one_round_and_one_for_the_rest() -> None:
    assumed = Assumptions(wire_share=0.5, memory_rate_bytes_s=1000 * MIB, begin_s=1, hand_over_s=0.1)
    live = predict(measured(1000, 1, 100), LIMIT_MS, assumed).live
    assert live is not None
    # 1000 MiB at 200 MiB/s of memory; 5 MiB were dirtied meanwhile, then 0.025.
    assert live.rounds == 3
    assert live.duration_s == pytest.approx(1 + 5 + 0.025 + 0.1, abs=0.001)
    assert live.wire_bytes == pytest.approx((1000 + 5) / 2 * MIB, rel=0.001)
    assert 100 <= live.downtime_ms < 100 + LIMIT_MS


def test_a_fast_link_does_not_make_hosts_faster() -> None:
    offline = predict(measured(1000, 0, 4000), LIMIT_MS).offline
    assert offline.duration_s > 1000 * MIB / Assumptions().memory_rate_bytes_s
    assert offline == predict(measured(1000, 0, 40_000), LIMIT_MS).offline


def test_without_compression_all_memory_goes_over_the_link() -> None:
    raw = predict(measured(1000, 0, 100), LIMIT_MS, Assumptions(wire_share=1.0)).offline
    assert raw.wire_bytes == 1000 * MIB
    assert raw.duration_s > 10


def test_a_hypervisor_that_compresses_by_itself_is_faster_unless_nothing_is_compressed() -> None:
    def rate(*, compressed: bool, by_hypervisor: bool) -> int:
        return Assumptions.of(compressed=compressed, by_hypervisor=by_hypervisor).memory_rate_bytes_s

    by_carriers = rate(compressed=True, by_hypervisor=False)
    assert by_carriers == Assumptions().memory_rate_bytes_s
    assert rate(compressed=True, by_hypervisor=True) > by_carriers
    assert rate(compressed=False, by_hypervisor=True) == by_carriers
    assert Assumptions.of(compressed=False, by_hypervisor=True).wire_share == 1.0


def test_offline_the_domain_stands_still_for_all_of_it() -> None:
    prediction = predict(measured(1000, 500, 100), LIMIT_MS)
    assert prediction.offline.downtime_ms >= 1000 * 1000 / 200
    assert prediction.verdict is Verdict.HOPELESS
    assert prediction.live is None
    assert any("will not converge" in sentence for sentence in prediction.sentences)


def test_a_small_working_set_converges_however_fast_it_is_written() -> None:
    assert predict(measured(1000, 5000, 100, set_mib=1), LIMIT_MS).verdict is Verdict.CONVERGES
    assert predict(measured(1000, 5000, 100, set_mib=100), LIMIT_MS).verdict is Verdict.HOPELESS


def test_what_cannot_be_seen_is_said() -> None:
    seen = Measured.of(Load((32 * MIB, 33 * MIB), 500 * MIB), 100 * MIB)
    assert seen.rate_is_least
    assert seen.working_set_bytes == 33 * MIB
    prediction = predict(seen, LIMIT_MS)
    assert prediction.verdict is Verdict.UNCERTAIN
    assert any("may not converge" in sentence for sentence in prediction.sentences)
    assert predict(seen, 1000).verdict is Verdict.CONVERGES


def test_what_only_compression_can_do_is_uncertain() -> None:
    prediction = predict(measured(1000, 120, 100), LIMIT_MS)
    assert prediction.verdict is Verdict.UNCERTAIN
    assert any("memory compresses" in sentence for sentence in prediction.sentences)
    assert predict(measured(1000, 90, 100), LIMIT_MS).verdict is Verdict.CONVERGES


def test_a_guest_that_writes_elsewhere_all_the_time_has_no_working_set() -> None:
    seen = Measured.of(Load((30 * MIB, 57 * MIB), 500 * MIB), 100 * MIB)
    assert seen.working_set_bytes == 500 * MIB
    assert not seen.rate_is_least
    assert seen.dirty_rate_bytes_s == 30 * MIB


def test_a_paused_guest_dirties_nothing() -> None:
    seen = Measured.of(Load((0, 0), 500 * MIB), 100 * MIB)
    assert (seen.dirty_rate_bytes_s, seen.rate_is_least) == (0, False)


def test_a_link_that_carries_nothing_predicts_nothing() -> None:
    with pytest.raises(ValueError, match="carries nothing"):
        predict(measured(1, 1, 0), LIMIT_MS)


@given(st.tuples(rates, rates).map(sorted), memories, links)
def test_whatever_a_driver_says_can_be_read(dirtied: list[int], in_use_bytes: int, link: int) -> None:
    seen = Measured.of(Load((dirtied[0], dirtied[1]), in_use_bytes), link)
    assert 0 <= seen.working_set_bytes <= in_use_bytes
    assert seen.dirty_rate_bytes_s >= 0


@given(measurements(), limits)
def test_it_ends_and_nothing_is_negative(seen: Measured, limit_ms: int) -> None:
    prediction = predict(seen, limit_ms)
    for expected in filter(None, (prediction.live, prediction.offline)):
        assert expected.duration_s >= 0
        assert expected.downtime_ms >= 0
        assert expected.wire_bytes >= 0
        assert 1 <= expected.rounds <= MAX_ROUNDS
        assert expected.downtime_ms <= expected.duration_s * 1000 + 1
    assert (prediction.live is None) == (prediction.verdict is Verdict.HOPELESS)
    json.dumps(prediction_object(prediction), allow_nan=False)


@given(measurements(), limits)
def test_live_downtime_keeps_the_limit(seen: Measured, limit_ms: int) -> None:
    live = predict(seen, limit_ms, Assumptions(hand_over_s=0)).live
    assert live is None or live.downtime_ms <= limit_ms + 0.1


@given(measurements(), limits, st.integers(0, 1 << 40))
def test_more_memory_never_takes_less(seen: Measured, limit_ms: int, more: int) -> None:
    larger = evolve(seen, memory_in_use_bytes=seen.memory_in_use_bytes + more)
    before, after = predict(seen, limit_ms), predict(larger, limit_ms)
    assert after.offline.duration_s >= before.offline.duration_s
    assert duration_s(after) >= duration_s(before) - 0.001


@given(measurements(), limits, rates)
def test_a_busier_guest_never_takes_less(seen: Measured, limit_ms: int, more: int) -> None:
    busier = evolve(seen, dirty_rate_bytes_s=seen.dirty_rate_bytes_s + more)
    assert duration_s(predict(busier, limit_ms)) >= duration_s(predict(seen, limit_ms)) - 0.001


@given(measurements(), limits, rates)
def test_a_faster_link_never_takes_longer(seen: Measured, limit_ms: int, more: int) -> None:
    faster = evolve(seen, link_bytes_s=seen.link_bytes_s + more)
    assert duration_s(predict(faster, limit_ms)) <= duration_s(predict(seen, limit_ms)) + 0.001


@given(measurements(), st.integers(0, 1 << 20), st.integers(0, 1000))
def test_who_dirties_faster_than_can_be_sent_does_not_converge(
    seen: Measured, more: int, limit_ms: int
) -> None:
    fastest = round(max(seen.link_bytes_s / Assumptions().wire_share, Assumptions().memory_rate_bytes_s))
    memory_bytes = fastest * limit_ms // 1000 + 2 + more
    busy = evolve(
        seen,
        memory_in_use_bytes=memory_bytes,
        working_set_bytes=memory_bytes,
        dirty_rate_bytes_s=fastest + more,
    )
    assert predict(busy, limit_ms).verdict is Verdict.HOPELESS
