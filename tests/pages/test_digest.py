"""One digest of several streams; ``test_order`` has that of one."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from relocd.pages.digest import StreamDigest, batch_digest

_batches = st.lists(st.binary(max_size=3), max_size=3)


def chain(batches: list[bytes]) -> StreamDigest:
    digest = StreamDigest()
    for sequence, data in enumerate(batches):
        digest.add(sequence, batch_digest(data))
    return digest


def joined(main: list[bytes], *others: list[bytes]) -> StreamDigest:
    digest = chain(main)
    for other in others:
        digest.join(chain(other))
    return digest


@given(_batches, st.lists(_batches, max_size=3), _batches, st.lists(_batches, max_size=3))
def test_streams_have_the_same_digest_if_each_of_them_is_the_same(
    main: list[bytes], others: list[list[bytes]], main2: list[bytes], others2: list[list[bytes]]
) -> None:
    first, second = joined(main, *others), joined(main2, *others2)
    assert (first.digest() == second.digest()) is ((main, others) == (main2, others2))


def test_streams_that_change_places_are_told_apart() -> None:
    known = {
        joined([b"a"], [b"b"], [b"c"]).hexdigest(),
        joined([b"a"], [b"c"], [b"b"]).hexdigest(),
        joined([b"b"], [b"a"], [b"c"]).hexdigest(),
    }
    assert len(known) == 3


def test_a_batch_that_changes_its_stream_is_told_apart() -> None:
    known = {
        joined([b"a", b"b"]).hexdigest(),
        joined([b"a", b"b"], []).hexdigest(),
        joined([b"a"], [b"b"]).hexdigest(),
        joined([], [b"a", b"b"]).hexdigest(),
        joined([], [b"a"], [b"b"]).hexdigest(),
    }
    assert len(known) == 5


def test_batches_of_all_streams_are_counted() -> None:
    assert joined([b"a"], [], [b"b", b"c"]).batches == 3


def test_a_stream_that_is_joined_stays_as_it_is() -> None:
    other = chain([b"b"])
    chain([b"a"]).join(other)
    assert other.digest() == chain([b"b"]).digest()
    assert other.batches == 1


def test_a_copy_goes_on_by_itself() -> None:
    digest = chain([b"a"])
    copy = digest.copy()
    assert (copy.digest(), copy.batches) == (digest.digest(), 1)
    copy.add(1, batch_digest(b"b"))
    assert digest.digest() == chain([b"a"]).digest()
    assert copy.digest() == chain([b"a", b"b"]).digest()
    digest.add(1, batch_digest(b"c"))
    assert digest.digest() == chain([b"a", b"c"]).digest()
    assert (digest.batches, copy.batches) == (2, 2)
