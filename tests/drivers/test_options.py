"""Option texts: whatever a value holds, it stays one value of one option."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relocd.drivers.qemu.options import digest, option, plain, word
from relocd.errors import DriverError
from tests.strategies import texts


def parse(text: str) -> list[tuple[str, str]]:
    """QEMU's own reading (util/keyval.c): single commas separate, doubled ones are part of the value."""
    parts = [part.replace("\0", ",") for part in text.replace(",,", "\0").split(",")]
    return [(key, value) for key, _, value in (part.partition("=") for part in parts)]


@given(first=texts, second=texts)
def test_no_value_becomes_an_option(first: str, second: str) -> None:
    text = option("socket", path=first, logfile=second)
    # A comma at the end of a value and the separator after it are read as one doubled comma by this simple parser.
    if not first.endswith(","):
        assert parse(text) == [("socket", ""), ("path", first), ("logfile", second)]
    assert text == f"socket,path={first.replace(',', ',,')},logfile={second.replace(',', ',,')}"


def test_names_and_values_are_written_as_qemu_reads_them() -> None:
    assert option("", node_name="a", cache__direct=True, read_only=False, size=3) == (
        "node-name=a,cache.direct=on,read-only=off,size=3"
    )


@given(st.text())
def test_words_are_plain(text: str) -> None:
    if re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._+-]{0,63}", text):
        assert word("machine", text) == text
    else:
        with pytest.raises(DriverError, match="machine"):
            word("machine", text)


@pytest.mark.parametrize("text", ["", "../../etc/passwd", "A" * 64, "0" * 63, "0" * 64 + "\n"])
def test_a_digest_is_nothing_but_hex(text: str) -> None:
    with pytest.raises(DriverError, match="SHA-256"):
        digest(text)


def test_a_digest() -> None:
    assert digest("0123456789abcdef" * 4) == "0123456789abcdef" * 4


@pytest.mark.parametrize("text", ["a\nb", "a\0b", "\x1b[2J", "\ud800"])
def test_what_cannot_be_printed_is_refused(text: str) -> None:
    with pytest.raises(DriverError, match="extra"):
        plain("extra", text)
    with pytest.raises(DriverError, match="path"):
        option("file", path=text)
