"""The language between daemon and carrier: strict, both ways."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relocd.carrier import control
from relocd.carrier.control import (
    AskDigest,
    CarrierDigest,
    CarrierEnded,
    CarrierFailed,
    CarrierFile,
    CarrierFilesDone,
    CarrierProgress,
    CarrierReady,
    FileSpec,
    LaneSecurity,
    Limit,
    Memory,
    Quit,
    Receive,
    Send,
    Stream,
    Totals,
    dump_command,
    dump_event,
    parse_command,
    parse_event,
)
from relocd.errors import ProtocolError
from relocd.pages.choice import LEVELS, Compression
from relocd.pages.limits import CHANNELS_MAX, LANES_MAX
from relocd.pages.stream_format import StreamFormat

_counts = st.integers(0, (1 << 63) - 1)
_sha256 = st.binary(min_size=32, max_size=32).map(bytes.hex)
_files = st.lists(st.builds(FileSpec, _counts, _sha256), max_size=3).map(tuple)
_lanes = st.integers(1, 15)
_channels = st.integers(0, CHANNELS_MAX)
_totals = st.builds(Totals, _counts, _counts, st.binary(min_size=16, max_size=16).map(bytes.hex))
_levels = st.tuples(*[_counts] * len(LEVELS))
_progress = st.builds(CarrierProgress, *[_counts] * 7, _levels)

_certificates = st.binary(min_size=1, max_size=2048).map(bytes.hex)
_security = st.none() | st.builds(LaneSecurity, st.text(), st.text(), _certificates)

_formats = st.sampled_from(StreamFormat)


@st.composite
def _shares(draw: st.DrawFn) -> tuple[int, int]:
    """Lanes, and how many of them are channels'."""
    lanes = draw(_lanes)
    return lanes, draw(st.integers(0, min(lanes - 1, CHANNELS_MAX)))


@st.composite
def _sends(draw: st.DrawFn) -> Send:
    lanes, channels = draw(_shares())
    compression = draw(st.sampled_from(Compression))
    return Send(lanes, compression, draw(_files), draw(_security), draw(_formats), channels)


@st.composite
def _receives(draw: st.DrawFn) -> Receive:
    lanes, channels = draw(_shares())
    return Receive(lanes, draw(_files), draw(_counts), draw(_security), draw(_formats), channels)


commands = st.one_of(
    _sends(),
    _receives(),
    st.builds(Limit, _counts),
    st.builds(Memory, st.text(), _counts, _counts),
    st.builds(Stream, _channels),
    st.sampled_from([AskDigest(), Quit()]),
)
events = st.one_of(
    _progress,
    st.builds(CarrierFile, _counts),
    st.builds(CarrierDigest, _totals),
    st.builds(CarrierEnded, _totals, _progress),
    st.builds(CarrierFailed, st.text(), st.text()),
    st.sampled_from([CarrierReady(), CarrierFilesDone()]),
)


@given(commands)
def test_commands_come_back(command: control.Command) -> None:
    assert parse_command(dump_command(command)) == command


@given(events)
def test_events_come_back(event: control.Event) -> None:
    assert parse_event(dump_event(event)) == event


_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=10,
)


@given(st.binary(max_size=100) | _json.map(lambda value: json.dumps(value).encode()))
def test_any_datagram_is_a_message_or_an_error(datagram: bytes) -> None:
    with contextlib.suppress(ProtocolError):
        parse_command(datagram)
    with contextlib.suppress(ProtocolError):
        parse_event(datagram)


@given(commands, st.data())
def test_any_value_in_a_field_is_taken_or_an_error(command: control.Command, data: st.DataObject) -> None:
    fields = json.loads(dump_command(command))
    fields[data.draw(st.sampled_from(sorted(fields)))] = data.draw(_json)
    with contextlib.suppress(ProtocolError):
        parse_command(json.dumps(fields).encode())


WRONG = {
    "not JSON": (b"{", "is not JSON"),
    "not UTF-8": (b'{"do": "\xff"}', "is not JSON"),
    "deep": (b"[" * 50000, "is not JSON"),
    "not an object": (b"[]", "no known 'do': None"),
    "no name": (b"{}", "no known 'do': None"),
    "unknown name": (b'{"do": "dance"}', "no known 'do': 'dance'"),
    "name is a list": (b'{"do": []}', "no known 'do'"),
    "unknown field": (b'{"do": "quit", "now": true}', r"fields must be \[\], not \['now'\]"),
    "missing field": (b'{"do": "limit"}', r"fields must be \['bytes_per_s'\]"),
    "negative": (b'{"do": "limit", "bytes_per_s": -1}', "whole number, not -1"),
    "fraction": (b'{"do": "limit", "bytes_per_s": 1.5}', "whole number, not 1.5"),
    "boolean": (b'{"do": "limit", "bytes_per_s": true}', "whole number, not True"),
    "huge": (b'{"do": "limit", "bytes_per_s": 9223372036854775808}', "whole number"),
    "no lanes": (
        b'{"do": "receive", "lanes": 0, "files": [], "stream_bytes_max": 0,'
        b' "security": null, "stream_format": "qemu", "channels": 0}',
        "1 to 15, not 0",
    ),
    "too many lanes": (
        b'{"do": "receive", "lanes": 16, "files": [], "stream_bytes_max": 0,'
        b' "security": null, "stream_format": "qemu", "channels": 0}',
        "1 to 15",
    ),
    "compression": (
        b'{"do": "send", "lanes": 1, "files": [], "compression": "lzma", "security": null,'
        b' "stream_format": "qemu", "channels": 0}',
        "lzma",
    ),
    "files": (
        b'{"do": "receive", "lanes": 1, "files": {}, "stream_bytes_max": 0,'
        b' "security": null, "stream_format": "qemu", "channels": 0}',
        "files must be a list",
    ),
    "file": (
        b'{"do": "receive", "lanes": 1, "files": [1], "stream_bytes_max": 0,'
        b' "security": null, "stream_format": "qemu", "channels": 0}',
        "an object is needed",
    ),
    "hash": (
        b'{"do": "receive", "lanes": 1, "files": [{"size_bytes": 1, "sha256": "AB"}], "stream_bytes_max": 0,'
        b' "security": null, "stream_format": "qemu", "channels": 0}',
        "64 lower-case hex",
    ),
    "certificate": (
        b'{"do": "receive", "lanes": 1, "files": [], "stream_bytes_max": 0,'
        b' "security": {"certificate": "", "key": "", "peer": "AB"}, "stream_format": "qemu", "channels": 0}',
        "peer must be a certificate",
    ),
    "stream format": (
        b'{"do": "send", "lanes": 1, "files": [], "compression": "none", "security": null,'
        b' "stream_format": "vmware", "channels": 0}',
        "'vmware' is not a valid StreamFormat",
    ),
    "stream without channels": (b'{"do": "stream"}', r"fields must be \['channels'\]"),
    "negative channels": (b'{"do": "stream", "channels": -1}', "channels must be 0 to 8, not -1"),
    "boolean channels": (b'{"do": "stream", "channels": true}', "channels must be 0 to 8, not True"),
    "channels in text": (b'{"do": "stream", "channels": "2"}', "channels must be 0 to 8, not '2'"),
    "too many channels": (b'{"do": "stream", "channels": 9}', "channels must be 0 to 8, not 9"),
    "too many channels to send": (
        b'{"do": "send", "lanes": 15, "files": [], "compression": "none", "security": null,'
        b' "stream_format": "qemu", "channels": 9}',
        "channels must be 0 to 8, not 9",
    ),
    "no lane for the main stream to send": (
        b'{"do": "send", "lanes": 2, "files": [], "compression": "none", "security": null,'
        b' "stream_format": "qemu", "channels": 2}',
        "2 lanes leave none for the main stream beside 2 channels",
    ),
    "no lane for the main stream to receive": (
        b'{"do": "receive", "lanes": 1, "files": [], "stream_bytes_max": 0,'
        b' "security": null, "stream_format": "qemu", "channels": 4}',
        "1 lanes leave none for the main stream beside 4 channels",
    ),
    "too long": (b'{"do": "quit"}' + b" " * (64 << 10), "longer than 65536"),
}


@pytest.mark.parametrize("case", WRONG)
def test_a_wrong_command_is_refused_with_a_reason(case: str) -> None:
    datagram, reason = WRONG[case]
    with pytest.raises(ProtocolError, match=reason):
        parse_command(datagram)


def test_too_many_files_are_refused() -> None:
    with pytest.raises(ValueError, match="at most 16"):
        Receive(1, tuple(FileSpec(1, "0" * 64) for _ in range(17)))


@pytest.mark.parametrize("levels", [[1, 2, 3], [1, 2, 3, -4], [1, 2, 3, 4.0], 1, None])
def test_content_is_counted_for_each_level_that_there_is(levels: object) -> None:
    event = json.loads(dump_event(CarrierProgress()))
    with pytest.raises(ProtocolError, match="level_bytes"):
        parse_event(json.dumps(event | {"level_bytes": levels}).encode())


def test_each_command_says_how_many_descriptors_it_brings() -> None:
    files = (FileSpec(1, "0" * 64),)
    assert [c.descriptors for c in (Send(2, Compression.AUTO, files), Receive(3, files))] == [3, 4]
    assert [c.descriptors for c in (Stream(), AskDigest(), Limit(1), Quit())] == [1, 0, 0, 0]


def test_channels_share_the_lanes_and_bring_a_descriptor_each_with_the_stream() -> None:
    assert [c.descriptors for c in (Send(5, channels=4), Receive(5, channels=4))] == [5, 5]
    assert Stream(4).descriptors == 5


def test_descriptors_of_the_longest_commands_fit_a_message() -> None:
    files = tuple(FileSpec(1, "0" * 64) for _ in range(control.FILES_MAX))
    longest = (Send(LANES_MAX, files=files, channels=CHANNELS_MAX), Stream(CHANNELS_MAX))
    assert max(command.descriptors for command in longest) <= control.DESCRIPTORS_MAX


@pytest.mark.parametrize("command", [Send, Receive])
@pytest.mark.parametrize("channels", [1, 2, CHANNELS_MAX])
def test_the_main_stream_has_a_lane_beside_the_channels(
    command: type[Send] | type[Receive], channels: int
) -> None:
    assert command(channels + 1, channels=channels).channels == channels
    with pytest.raises(ValueError, match="leave none for the main stream"):
        command(channels, channels=channels)


def test_what_a_carrier_says_for_people_is_safe_to_print() -> None:
    failed = control.parse_event(b'{"event": "failed", "code": "stream", "text": "a\\u001b[2J\\u202eb"}')
    assert failed == control.CarrierFailed("stream", "a [2J b")


def test_the_daemon_can_import_it_without_the_machinery() -> None:
    code = "import sys, relocd.carrier.control; print(sorted({'numpy', 'xxhash'} & set(sys.modules)))"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "[]"
