"""What the bench reads: silences in echoes, the counters of an uplink, its own command line."""

from __future__ import annotations

import numpy as np
import pytest

from tests.bench.__main__ import main
from tests.bench.echoes import SILENCE_MIN_MS, SILENCES_MAX, silences
from tests.bench.wire import counted_bytes

COUNTERS = """Inter-|   Receive                                                |  Transmit
 face |bytes    packets errs drop fifo frame compressed multicast|bytes packets errs drop
    lo:     100       1    0    0    0     0          0         0      100       1    0    0
uplink: 7777777     888    0    0    0     0          0         0 99999999    1111    0    0
"""


def test_silences_are_told_in_order_from_the_command_to_its_end() -> None:
    echoes_s = np.array([0.0, 5.0, 9.99, 10.002, 10.006, 10.106, 10.11, 10.15, 10.25])
    first, second = silences(echoes_s, 10.0, 10.12)
    assert first == pytest.approx((0.006, 100))
    assert second == pytest.approx((0.11, 40))


def test_one_that_began_before_the_command_counts_in_full() -> None:
    (only,) = silences(np.array([9.9, 10.1]), 10.0, 11.0)
    assert only == pytest.approx((0.0, 200))


def test_the_longest_are_kept() -> None:
    lengths_s = (SILENCE_MIN_MS + np.arange(300)) / 1000
    kept = silences(np.cumsum(lengths_s), 0.0, 1e9)
    assert len(kept) == SILENCES_MAX
    assert min(length for _, length in kept) == pytest.approx(SILENCE_MIN_MS + 200)
    assert list(kept) == sorted(kept)


def test_no_echo_no_silence() -> None:
    assert silences(np.array([]), 10.0, 11.0) == ()


def test_a_device_is_found_among_the_counters() -> None:
    assert counted_bytes(COUNTERS, "uplink", 8) == 99999999
    assert counted_bytes(COUNTERS, "uplink", 0) == 7777777
    with pytest.raises(ValueError, match="no uplink"):
        counted_bytes("lo: 1 2 3", "uplink", 8)


def test_a_guest_that_cannot_boot_is_refused_at_once(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="128 MiB"):
        main(["--scenario", "sizes", "--memory", "1024"])
    with pytest.raises(SystemExit):
        main(["--runs", "0"])
    assert "at least 1" in capsys.readouterr().err
