"""The probe frame, byte by byte, and that nobody else can make one."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from relocd.segment.probe import MIN_FRAME_BYTES, NONCE_BYTES, Kind, build, is_probe, probe_key

KEY = bytes(range(32))
SENDER = bytes.fromhex("02524c4f0001")
SAMPLE = build(Kind.ASK, KEY, "xenbr0", SENDER)
TAGGED = 38

names = st.from_regex(r"[A-Za-z0-9_.-]{1,15}", fullmatch=True)
keys = st.binary(min_size=32, max_size=32)
kinds = st.sampled_from(Kind)


def test_every_byte_is_where_the_layout_says() -> None:
    assert SAMPLE[:6] == b"\xff" * 6
    assert SAMPLE[6:12] == SENDER
    assert SAMPLE[12:14] == b"\x88\xb5"
    assert SAMPLE[14:18] == b"RLPB"
    assert SAMPLE[18:22] == bytes((1, 1, 0, 0))
    assert SAMPLE[22:38] == bytes.fromhex("82857e2df5801e8fbeb9fe9e7a2dec66")
    assert SAMPLE[38:] == bytes(22)
    assert len(SAMPLE) == MIN_FRAME_BYTES


@given(kinds, keys, names)
def test_what_is_built_is_known(kind: Kind, key: bytes, name: str) -> None:
    frame = build(kind, key, name, SENDER)
    assert is_probe(frame, kind, key, name)
    assert is_probe(frame + b"\0\0\0\0", kind, key, name)  # a trailer that a card left


@given(kinds, kinds, keys, keys, names, names)
def test_another_dialogue_direction_or_bridge_is_not_it(
    kind: Kind, other_kind: Kind, key: bytes, other_key: bytes, name: str, other_name: str
) -> None:
    frame = build(kind, key, name, SENDER)
    same = (kind, key, name) == (other_kind, other_key, other_name)
    assert is_probe(frame, other_kind, other_key, other_name) is same


def test_one_wrong_byte_is_enough() -> None:
    for place in [*range(12, 20), *range(22, TAGGED)]:
        wrong = bytearray(SAMPLE)
        wrong[place] ^= 1
        assert not is_probe(bytes(wrong), Kind.ASK, KEY, "xenbr0"), place


@given(st.binary(max_size=100) | st.integers(0, TAGGED - 1).map(lambda end: SAMPLE[:end]))
def test_anything_else_is_not_a_probe(frame: bytes) -> None:
    assert not is_probe(frame, Kind.ASK, KEY, "xenbr0")


@given(
    st.binary(min_size=NONCE_BYTES, max_size=NONCE_BYTES),
    st.binary(min_size=NONCE_BYTES, max_size=NONCE_BYTES),
)
def test_the_key_is_of_both_sides(ours: bytes, theirs: bytes) -> None:
    assert (probe_key(ours, theirs) == probe_key(theirs, ours)) is (ours == theirs)
    assert len(probe_key(ours, theirs)) == 32
