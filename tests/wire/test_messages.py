"""Messages: what is written is read back; what is not a message is a ProtocolError and nothing else."""

from __future__ import annotations

import contextlib
import string
from uuid import UUID

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from relocd.config.model import L2Mode
from relocd.errors import ProtocolError
from relocd.model import DomainConfig
from relocd.preflight.facts import DiskFact, DiskKind, SourceFacts
from relocd.preflight.result import Check, Verdict
from relocd.printable import MAX_TEXT, printable
from relocd.segment.proof import BridgeEnd, EndState
from relocd.wire.lines import MAX_LINE_BYTES, LineCutter
from relocd.wire.messages import (
    Abort,
    Accept,
    ClassicReceive,
    Commit,
    Decision,
    Hello,
    Help,
    Inquire,
    Intent,
    Lane,
    Measure,
    Measured,
    Message,
    Prepared,
    Problem,
    ProgressNote,
    Propose,
    Ready,
    Receiving,
    Refuse,
    Resumed,
    Standing,
    Switchover,
    Verdicts,
    agree,
    decode,
    encode,
)
from relocd.wire.network import End, MakeTunnel, Probe, Probing, TunnelMade, TunnelUse, TunnelUsed
from tests.strategies import domain_configs

texts = st.text(st.characters(exclude_categories=["C", "Z"]) | st.just(" "), max_size=200).map(printable)
words = st.text(string.ascii_letters + string.digits + "-", min_size=1, max_size=20)
hexes = st.text("0123456789abcdef", min_size=2, max_size=64)
checks = st.lists(st.builds(Check, words, st.sampled_from(Verdict), texts, texts), max_size=5).map(tuple)
sizes = st.integers(0, 1 << 50)

_registers = st.from_regex(r"[0-9a-f]{1,8}\.[0-9a-f]{1,8}\.e[abcd]x", fullmatch=True)
_samples = st.lists(st.just("") | st.from_regex(r"[0-9a-f]{16}", fullmatch=True), max_size=16).map(tuple)
_disks = st.builds(
    DiskFact,
    words,
    exists=st.just(True),
    readable=st.just(True),
    size_bytes=st.integers(-1, (1 << 63) - 1),
    kind=st.sampled_from(DiskKind),
    locked=st.sampled_from([True, False, None]),
    samples=_samples,
)
sources = st.builds(
    SourceFacts,
    st.just("") | words,
    st.integers(0, 1 << 40).map(lambda clock_ms: clock_ms / 1000),
    st.dictionaries(_registers, st.integers(0, (1 << 32) - 1), max_size=8),
    st.lists(_disks, max_size=3).map(lambda disks: {disk.path: disk for disk in disks}),
    st.frozensets(words, max_size=8),
    texts,
)
_nonces = st.binary(min_size=16, max_size=16).map(bytes.hex)
_bridges = st.from_regex(r"[A-Za-z0-9_-]{1,15}", fullmatch=True)
_subnets = st.lists(
    st.ip_addresses(v=4).map(lambda ip: f"{ip}/32") | st.ip_addresses(v=6).map(lambda ip: f"{ip}/128"),
    max_size=16,
).map(tuple)
_ends = st.lists(
    st.builds(
        BridgeEnd,
        _bridges,
        st.sampled_from(EndState),
        st.just("") | st.binary(min_size=16, max_size=16).map(bytes.hex),
        _subnets,
        texts,
    ),
    max_size=8,
    unique_by=lambda end: end.name,
).map(tuple)
messages: st.SearchStrategy[Message] = st.one_of(
    st.sampled_from([Help(), ClassicReceive(), Ready(), Receiving(), Switchover(), Commit(), Resumed()]),
    st.builds(
        Hello,
        texts,
        texts,
        st.integers(0, 65535),
        st.integers(1, 5),
        st.integers(1, 9),
        st.lists(words, max_size=5).map(tuple),
    ),
    st.builds(
        Propose,
        st.uuids(),
        st.sampled_from(Intent),
        st.booleans(),
        st.booleans(),
        st.integers(1, 16),
        domain_configs(),
        sources,
        channels=st.integers(0, 8),
    ),
    st.builds(
        Accept,
        st.uuids(),
        hexes,
        st.integers(1, 16),
        st.lists(hexes, max_size=3).map(tuple),
        checks,
        st.just("") | st.binary(min_size=1, max_size=2048).map(bytes.hex),
        channels=st.integers(0, 8),
    ),
    st.builds(Refuse, checks),
    st.builds(Verdicts, checks),
    st.builds(Lane, st.uuids(), hexes, st.integers(0, 15)),
    st.builds(ProgressNote, st.integers(0, 1000), sizes, sizes),
    st.builds(Prepared, hexes, sizes),
    st.builds(Inquire, st.uuids(), hexes),
    st.builds(Standing, st.uuids(), st.sampled_from(Decision)),
    st.builds(Measure, st.integers(1, 1 << 27), st.integers(1, 2000)),
    st.builds(Measured, sizes, st.integers(0, 1 << 40)),
    st.builds(Resumed, sizes.filter(lambda us: us <= 1 << 40), st.none() | st.integers(0, 1 << 40)),
    st.builds(Probe, _nonces, st.sampled_from(L2Mode), _ends),
    st.builds(Probing, _nonces, st.sampled_from(L2Mode), _ends),
    st.builds(MakeTunnel, _bridges, st.integers(1, (1 << 24) - 1), st.integers(1, 65535)),
    st.builds(TunnelMade, st.sampled_from(End), texts),
    st.builds(TunnelUse, st.integers(1, (1 << 24) - 1)),
    st.builds(TunnelUsed, st.booleans()),
    st.builds(Abort, words, texts),
    st.builds(Problem, words, texts),
)


@given(messages)
def test_what_is_written_is_read_back_from_one_line(message: Message) -> None:
    line = encode(message)
    assert line.endswith(b"\n")
    assert line.count(b"\n") == 1
    assert len(line) <= MAX_LINE_BYTES
    assert decode(line[:-1]) == message


@given(st.binary(max_size=300) | st.text(alphabet="()' \"\\#abhelorpis", max_size=120).map(str.encode))
def test_any_bytes_are_a_message_or_a_protocol_error(line: bytes) -> None:
    with contextlib.suppress(ProtocolError):
        decode(line)


@given(messages, st.data())
@settings(max_examples=300)
def test_a_damaged_message_is_a_message_or_a_protocol_error(message: Message, data: st.DataObject) -> None:
    line = bytearray(encode(message)[:-1])
    at = data.draw(st.integers(0, len(line) - 1))
    match data.draw(st.sampled_from(["cut", "flip", "insert"])):
        case "cut":
            del line[at:]
        case "flip":
            line[at] ^= 1 << data.draw(st.integers(0, 7))
        case "insert":
            line[at:at] = data.draw(st.binary(min_size=1, max_size=4))
    with contextlib.suppress(ProtocolError):
        decode(bytes(line))


@given(st.lists(messages, max_size=6), st.lists(st.integers(1, 400), max_size=40))
def test_lines_come_out_whole_however_they_are_cut(batch: list[Message], cuts: list[int]) -> None:
    stream = b"".join(encode(message) for message in batch)
    cutter, got, start = LineCutter(), [], 0
    for size in [*cuts, len(stream)]:
        got += cutter.feed(stream[start : start + size])
        start += size
    assert [decode(line) for line in got] == batch
    assert cutter.pending == 0


def test_byte_by_byte() -> None:
    cutter = LineCutter()
    stream = encode(Hello("relocd", "a", 8002)) + encode(Commit())
    got = [line for byte in stream for line in cutter.feed(bytes([byte]))]
    assert [decode(line) for line in got] == [Hello("relocd", "a", 8002), Commit()]


@pytest.mark.parametrize("tail", [b"", b"\n"])
def test_an_endless_line_is_refused_before_it_grows(tail: bytes) -> None:
    cutter = LineCutter(limit_bytes=100)
    cutter.feed(b"x" * 100)
    with pytest.raises(ProtocolError, match="longer than 100"):
        cutter.feed(b"x" + tail)


def test_a_person_may_type_the_bare_word_and_crlf() -> None:
    (line,) = LineCutter().feed(b"help\r\n")
    assert decode(line) == Help()
    assert decode(b"receive") == ClassicReceive()


def _proposal(field: bytes) -> bytes:
    """A proposal with one more field."""
    proposal = Propose(UUID(int=1), Intent.MOVE, True, False, 1, DomainConfig("web", UUID(int=2), 64))
    return encode(proposal)[:-2] + field + b")"


def _probe(ends: bytes, nonce: bytes = b"00" * 16) -> bytes:
    return b"(probe (nonce " + nonce + b") (mode require) (bridges " + ends + b"))"


@pytest.mark.parametrize(
    ("line", "says"),
    [
        (_proposal(b"(channels 9)"), "channels"),
        (_proposal(b"(channels -1)"), "channels"),
        (b"(fly)", "unknown message 'fly'"),
        (b"()", "begin with its name"),
        (b"(lane (relocation x) (token ab) (number 0))", "must be a UUID"),
        (b"(lane (relocation 00000000-0000-0000-0000-000000000001) (token ab))", "lacks the field 'number'"),
        (
            b"(lane (relocation 00000000-0000-0000-0000-000000000001) (token AB) (number 0))",
            "bad value for 'token'",
        ),
        (b"(prepared (digest ab) (stream-bytes -1))", "from 0 to"),
        (b"(prepared (digest ab) (digest cd) (stream-bytes 1))", "appears twice"),
        (
            b"(standing (relocation 00000000-0000-0000-0000-000000000001) (decision maybe))",
            "value for 'decision'",
        ),
        (b"(propose (warp! 9))", "mandatory fields unknown here: warp!"),
        (_proposal(b"(cpu-words (7.0.ebx -1))"), "from 0 to"),
        (_proposal(b"(cpu-words (7.0.ebx 4294967296))"), "from 0 to"),
        (_proposal(b"(cpu-words (7.ebx 1))"), "no register of CPUID"),
        (_proposal(b"(cpu-words " + b"(7.0.ebx 1)" * 257 + b")"), "more than 256 entries"),
        (_proposal(b"(clock-ms soon)"), "must be a whole number"),
        (_proposal(b"(disks (/d local 1 yes))"), "a list of 5 words"),
        (_proposal(b"(disks (/d moon 1 yes 0))"), "cannot be understood"),
        (_proposal(b"(disks (/d local 1 maybe 0))"), "cannot be understood"),
        (_proposal(b"(disks (/d local -2 yes 0))"), "from -1 to"),
        (_proposal(b"(disks (/d local 1 yes xyz))"), "cannot be understood"),
        (_probe(b"", nonce=b"00"), "bad value for 'nonce'"),
        (_probe(b"(br0 ready '' '' '') (br0 down '' '' '')"), "names a bridge twice"),
        (_probe(b"(../x ready '' '' '')"), "cannot be the name of a bridge"),
        (_probe(b"(.. ready '' '' '')"), "cannot be the name of a bridge"),
        (_probe(b"(br0 asleep '' '' '')"), "cannot be understood"),
        (_probe(b"(br0 ready xx '' '')"), "cannot be understood"),
        (_probe(b"(br0 ready '' 10.0.0.1/24 '')"), "a subnet cannot be understood"),
        (_probe(b"(br0 ready '' '" + b"10.0.0.0/24 " * 17 + b"' '')"), "more than 16 subnets"),
        (_probe(b"(br0 ready '' '' '')" * 9), "more than 8 entries"),
        (b"(make-tunnel (bridge br0) (vni 16777216) (port 4789))", "from 1 to"),
        (b"(make-tunnel (bridge 'br 0') (vni 1) (port 4789))", "cannot be the name of a bridge"),
        (b"\xff", "not UTF-8"),
        (b"(" * 200, "deep"),
    ],
)
def test_what_is_wrong_is_said(line: bytes, says: str) -> None:
    with pytest.raises(ProtocolError) as caught:
        decode(line)
    assert says in str(caught.value)


def test_unknown_optional_fields_are_skipped() -> None:
    assert decode(b"(prepared (digest ab) (stream-bytes 1) (colour blue))") == Prepared("ab", 1)


def test_texts_of_peers_are_made_safe_to_print() -> None:
    message = decode(b"(abort (code stream) (text 'a\\x1b[2Jb'))")
    assert message == Abort("stream", "a [2Jb")
    assert printable("good \u202e\u2066\u200b\u2028\x9b!") == "good      !", (
        "nor what turns the direction of writing"
    )
    assert len(printable("x" * 5000)) == MAX_TEXT


@pytest.mark.parametrize(
    ("theirs", "version"), [((1, 1), 1), ((1, 7), 1), ((2, 3), None), ((0, 0), None)], ids=str
)
def test_the_highest_common_version_is_used(theirs: tuple[int, int], version: int | None) -> None:
    ours = Hello("relocd", "a", 0, 1, 1)
    peer = Hello("relocd", "b", 0, *theirs)
    if version is None:
        with pytest.raises(ProtocolError, match="no common protocol version"):
            agree(ours, peer)
    else:
        assert agree(ours, peer) == version


def test_the_nil_relocation_is_an_ordinary_uuid_on_the_wire() -> None:
    assert decode(encode(Inquire(UUID(int=0), "ab"))[:-1]) == Inquire(UUID(int=0), "ab")
