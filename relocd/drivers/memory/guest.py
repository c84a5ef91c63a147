"""A guest that can be told from a copy: pages that know their number and version, and a clock that only it moves."""

from __future__ import annotations

import time

from attrs import define, field

PAGE_BYTES = 1024
_WORD_BYTES = 8
_PAGES_PER_MIB = 4  # enough to need more than one buffer of the stream, and still fast


@define
class Guest:
    """Memory, and a counter of milliseconds that stands still while the guest is paused.

    ``restless_ms``: its relocation goes on round after round until a pause of this length is allowed.
    """

    versions: list[int]
    running: bool = False
    restless_ms: int = 0
    dirty: set[int] = field(factory=set)
    _counted_ms: float = 0.0
    _since_s: float = 0.0

    @classmethod
    def new(cls, memory_mib: int) -> Guest:
        """A guest that has just been started, paused; all its memory is dirty."""
        versions = [1] * (memory_mib * _PAGES_PER_MIB)
        return cls(versions, dirty=set(range(len(versions))))

    @property
    def counter_ms(self) -> float:
        """How long the guest has run, in milliseconds."""
        return self._counted_ms + ((time.monotonic() - self._since_s) * 1000 if self.running else 0.0)

    @counter_ms.setter
    def counter_ms(self, value: float) -> None:
        self._counted_ms, self._since_s = value, time.monotonic()

    def run(self) -> None:
        """Let it run. Idempotent."""
        if not self.running:
            self._since_s = time.monotonic()
            self.running = True

    def pause(self) -> None:
        """Halt it. Idempotent."""
        self._counted_ms = self.counter_ms
        self.running = False

    def work(self, pages: int) -> None:
        """What a running guest does meanwhile: write to its first pages."""
        if self.running:
            for index in range(min(pages, len(self.versions))):
                self.write(index, self.versions[index] + 1)

    def write(self, index: int, version: int) -> None:
        """Fill one page."""
        self.versions[index] = version
        self.dirty.add(index)

    def page(self, index: int) -> bytes:
        """The content of one page: its number and version, over and over."""
        word = (index << 32 | self.versions[index]).to_bytes(_WORD_BYTES, "big")
        return word * (PAGE_BYTES // _WORD_BYTES)


def version_of(index: int, content: bytes) -> int:
    """The version of a page that arrived. Raises ValueError if it is not whole, or not the page it claims to be."""
    word = content[:_WORD_BYTES]
    number = int.from_bytes(word, "big")
    if content != word * (PAGE_BYTES // _WORD_BYTES) or number >> 32 != index:
        raise ValueError(f"page {index} is damaged")
    return number & 0xFFFFFFFF
