"""Whom a certificate is for, and until when."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from relocd.errors import ConfigError
from relocd.tls.authority import issue, new_authority, new_lane_pair
from relocd.tls.certificate import Certificate, read_der, read_pem
from tests.certificates import AUTHORITY

NOW = datetime(2030, 1, 1, tzinfo=UTC)


def certificate(*holders: str, days: int = 365) -> Certificate:
    return read_der(issue(AUTHORITY, holders, days=days, now=NOW).der())


@pytest.mark.parametrize(
    ("host", "is_for"),
    [
        ("hosta", True),
        ("HOSTA", True),
        ("hosta.", True),
        ("hosta.example.org", True),
        ("hostb", False),
        ("a.hosta.example.org", False),
        ("10.0.0.1", True),
        ("10.0.0.2", False),
        ("2001:db8::1", True),
        ("2001:DB8:0:0::1", True),
        ("fe80::1%eth0", True),
        ("", False),
    ],
)
def test_a_certificate_is_for_the_names_and_addresses_in_it(host: str, is_for: bool) -> None:
    told = certificate("hosta", "HostA.example.org", "10.0.0.1", "2001:db8::1", "fe80::1")
    assert told.is_for(host) is is_for


def test_an_address_as_a_name_is_no_address() -> None:
    assert not certificate("hosta").is_for("10.0.0.1")


@pytest.mark.parametrize(
    ("days", "says"),
    [
        (0, "expires on 2030-01-31, in 29 days"),
        (1, "in 28 days"),
        (29.9, "in 0 days"),
        (30.1, "has expired on"),
    ],
)
def test_a_certificate_warns_of_its_end(days: float, says: str) -> None:
    told = certificate("hosta", days=30)
    assert told.warning(NOW - timedelta(days=0.1)) == ""
    assert says in told.warning(NOW + timedelta(days=days, seconds=1))


def test_two_authorities_have_two_names() -> None:
    first, second = (read_der(new_authority().der()) for _ in range(2))
    assert first.subject != second.subject
    assert certificate("hosta").issuer == read_der(AUTHORITY.der()).subject


def test_a_lanes_certificate_is_for_nobody_and_for_ever() -> None:
    told = read_der(new_lane_pair().der())
    assert told.holders == "nobody"
    assert told.days_left() > 365 * 1000


def test_nonsense_is_no_certificate() -> None:
    with pytest.raises(ValueError, match=r"(?i)pars|asn"):
        read_der(b"nonsense")
    with pytest.raises(ConfigError, match=r"x\.pem: this is no certificate"):
        read_pem("nonsense", "x.pem")
