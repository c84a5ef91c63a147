"""Output for people."""

from __future__ import annotations

from typing import Any

import click
import pytest

from relocd.cli import render
from relocd.cli.commands import Preflight
from relocd.cli.replies import Check, Domain, Outcome
from tests.cli.control_server import INFO, domain, outcome


@pytest.mark.parametrize(
    ("size", "text"),
    [(0, "0 B"), (1023, "1023 B"), (1024, "1.0 KiB"), (390_070_272, "372.0 MiB"), (5 * 2**40, "5120.0 GiB")],
)
def test_sizes(size: int, text: str) -> None:
    assert render.size_text(size) == text


@pytest.mark.parametrize(
    ("seconds", "text"), [(0, "0.0 s"), (59.94, "59.9 s"), (60, "1:00"), (3599, "59:59"), (3661, "1:01:01")]
)
def test_durations(seconds: float, text: str) -> None:
    assert render.duration_text(seconds) == text


def test_the_table_of_domains_is_sorted_by_id() -> None:
    assert render.domains_table(
        [Domain.of(domain("mail.example.org", 12, "paused")), Domain.of(domain("web", 1))]
    ) == (
        "NAME              ID  STATE    MEMORY MiB  VCPUS  CPU TIME s  UUID\n"
        "web                1  running         128      1         1.5  00000000-0000-4000-8000-000000000001\n"
        "mail.example.org  12  paused         1536      1        18.0  00000000-0000-4000-8000-000000000012"
    )


def test_an_empty_host_still_has_a_header() -> None:
    assert render.domains_table([]) == "NAME  ID  STATE  MEMORY MiB  VCPUS  CPU TIME s  UUID"


CHECKS = (
    Check("memory", "pass", "8192 MiB free, 128 needed", ""),
    Check("clock", "warn", "the clocks differ by 3 s", "Run NTP on both hosts."),
    Check("bridges", "fail", "there is no bridge xenbr0", "Make it: ip link add xenbr0 type bridge."),
)


def test_checks_come_with_reason_and_remedy() -> None:
    assert click.unstyle(render.preflight_text(Preflight(False, CHECKS, {}), "web", "hostb")) == (
        "pass  memory   8192 MiB free, 128 needed\n"
        "warn  clock    the clocks differ by 3 s\n"
        "               -> Run NTP on both hosts.\n"
        "fail  bridges  there is no bridge xenbr0\n"
        "               -> Make it: ip link add xenbr0 type bridge.\n"
        "Domain 'web' cannot move to hostb: 1 of 3 checks failed."
    )
    text = render.preflight_text(Preflight(True, CHECKS[:1], {}), "web", "hostb")
    assert text.endswith("\nDomain 'web' can move to hostb.")


def test_info_names_what_it_knows_and_shows_the_rest() -> None:
    lines = render.info_text(
        {"event": "result", **INFO, "weather": "fine", "accelerators": ["tcg", "kvm-vmx"]}
    )
    assert lines.splitlines()[:2] == ["relocd version        0.1.0", "host                  hosta"]
    assert "accelerators          tcg kvm-vmx" in lines
    assert lines.endswith("\nweather               fine")
    assert "event" not in lines


def _summary(**more: Any) -> str:
    reply = outcome(**more)
    return render.summary(Outcome.of(reply, domain="web", host="hostb", live=True, status=0))


def test_the_summary_has_the_figures() -> None:
    assert _summary() == (
        "Domain 'web' is on hostb now: live, 3 rounds, 10.2 s, downtime 41 ms, blackout about 67 ms, "
        "372.0 MiB sent, relocation r1."
    )
    assert (
        "372.0 MiB sent, saved 1.6 GiB (932.0 MiB zero pages and 690.0 MiB by compression), rel"
        in _summary(saved_zero_bytes=932 << 20, saved_compression_bytes=690 << 20)
    )
    assert "sent, saved 3.0 KiB (3.0 KiB by compression), rel" in _summary(saved_compression_bytes=3072)
    assert _summary(live=False, rounds=1, downtime_ms=None, blackout_ms=None, relocation=None) == (
        "Domain 'web' is on hostb now: offline, 1 round, 10.2 s, 372.0 MiB sent."
    )
