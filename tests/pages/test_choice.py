"""The choice of compression, on links and compressors that are a few numbers."""

from __future__ import annotations

from attrs import define

from relocd.pages.choice import DENSE_SKIP_MAX, HOLD_BYTES_MAX, WORTH_BYTES, Choice, Compression

BATCH = 256 << 10
COST = {-5: 0.4, 1: 1.0, 3: 3.0}
GIGABIT = 118e6


@define
class Way:
    """A compressor, a link and a target that cannot take more than so much, all in bytes per second."""

    link: float
    target: float = 1e12
    ratio: float = 0.3
    compressor: float = 3e9
    loose: float = 0.05
    idle_share: float = 0.0
    clock_s: float = 0.0
    idle_s: float = 0.0

    def move(self, choice: Choice, content_bytes: int) -> dict[int, int]:
        """Send so much content; return how many bytes went at which level."""
        went: dict[int, int] = {}
        for _ in range(content_bytes // BATCH):
            level = 0 if choice.skips() else choice.level(BATCH)
            wire = BATCH
            busy = BATCH / self.target
            if level:
                wire = int(BATCH * (self.ratio + (self.loose if level < 0 else -0.01 * level)))
                busy = max(busy, COST[level] * BATCH / self.compressor)
                wire = wire if choice.shrunk(BATCH, wire) else BATCH
            busy = max(busy, wire / self.link)
            idle = busy * self.idle_share
            self.clock_s, self.idle_s = self.clock_s + busy + idle, self.idle_s + idle
            choice.moved(BATCH, self.clock_s, self.idle_s)
            went[level] = went.get(level, 0) + BATCH
        return went


def test_a_link_slower_than_the_compressor_gets_compressed_pages() -> None:
    went = Way(GIGABIT).move(Choice(Compression.AUTO), 1 << 30)
    assert went[1] > 0.9 * (1 << 30)


def test_a_link_faster_than_the_compressor_gets_raw_pages() -> None:
    went = Way(20e9).move(Choice(Compression.AUTO), 1 << 30)
    assert went[0] > 0.9 * (1 << 30)


def test_a_target_slower_than_both_gets_raw_pages() -> None:
    went = Way(2e9, target=0.3e9).move(Choice(Compression.AUTO), 1 << 30)
    assert went[0] > 0.9 * (1 << 30)


def test_a_slow_link_gets_more_compression_if_that_gains() -> None:
    went = Way(12e6, ratio=0.10).move(Choice(Compression.AUTO), 1 << 30)
    assert went[3] > went[1]


def test_the_quickest_compression_is_taken_where_it_is_as_good() -> None:
    went = Way(GIGABIT, loose=0.0).move(Choice(Compression.AUTO), 1 << 30)
    assert went[-5] > 0.9 * (1 << 30)


def test_a_processor_slower_than_the_link_gets_the_quickest_compression() -> None:
    went = Way(200e6, compressor=0.3e9).move(Choice(Compression.AUTO), 1 << 30)
    assert went[-5] > 0.9 * (1 << 30)


def test_a_source_that_pauses_changes_nothing() -> None:
    went = Way(GIGABIT, idle_share=5.0).move(Choice(Compression.AUTO), 1 << 30)
    assert went[1] > 0.9 * (1 << 30)


def test_a_link_that_becomes_slow_is_noticed() -> None:
    way, choice = Way(20e9), Choice(Compression.AUTO)
    way.move(choice, 2 * HOLD_BYTES_MAX)
    way.link = GIGABIT
    went = way.move(choice, 1 << 30)
    assert went[1] > 0.8 * (1 << 30)


def test_content_that_does_not_shrink_goes_raw_and_is_sampled() -> None:
    way, choice = Way(GIGABIT, ratio=0.99), Choice(Compression.ZSTD)
    went = way.move(choice, 1 << 28)
    assert went[1] / BATCH <= (1 << 28) / BATCH / DENSE_SKIP_MAX + 5
    way.ratio = 0.3
    assert way.move(choice, 1 << 28)[1] > 0.9 * (1 << 28)


def test_a_dense_batch_is_sent_as_it_is() -> None:
    choice = Choice(Compression.ZSTD)
    assert choice.shrunk(1000, 930)
    assert not choice.shrunk(1000, 931)


def test_an_administrator_has_the_last_word() -> None:
    assert set(Way(GIGABIT).move(Choice(Compression.NONE), 1 << 28)) == {0}
    assert set(Way(20e9).move(Choice(Compression.ZSTD), 1 << 28)) == {1}


def test_small_payloads_are_left_alone() -> None:
    choice = Choice(Compression.ZSTD)
    assert choice.level(WORTH_BYTES - 1) == 0
    assert choice.level(WORTH_BYTES) == 1
