"""What a hypervisor's stream consists of, in words that belong to no hypervisor.

A codec (``codecs`` lists them) makes items from bytes and bytes from items. Everything between the two
codecs, that is batching, compression, digest and placing pages into a guest's memory, knows items only, so
another hypervisor needs another codec and nothing else. Which items there are in a stream is its format's business.

Items made by a decoder refer to the buffer that was decoded: they hold no copy, and are good until the caller
uses that buffer again.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from attrs import frozen

PAGE_SIZE = 4096
"""Bytes in a page. Streams with another page size are not understood and travel as spans."""

Buffer = bytes | bytearray | memoryview
Numbers = npt.NDArray[np.uint64]
Octets = npt.NDArray[np.uint8]
Flags = npt.NDArray[np.bool_]


@frozen(eq=False)
class Span:
    """Bytes that travel as they are: headers, device state, and all that a codec does not understand."""

    data: Buffer

    def __attrs_post_init__(self) -> None:
        if not len(self.data):
            raise ValueError("a span has at least one byte")


@frozen(eq=False)
class PageRun:
    """Pages that follow each other in the stream and belong to one block of guest memory.

    ``numbers`` are page numbers inside the block, in stream order (the order matters: the last content wins).
    ``contents`` has one row of PAGE_SIZE bytes a page; rows are contiguous, but there may be gaps between
    them, since a decoder hands out views of the receive buffer. ``named`` says that the stream spells the
    block's name out here; only a run of one page can be.
    """

    block: str
    numbers: Numbers
    contents: Octets
    named: bool = False

    def __attrs_post_init__(self) -> None:
        if self.contents.shape != (len(self.numbers), PAGE_SIZE):
            raise ValueError("a page run needs one row of content for each page number")
        _check_named(self.named, self.numbers)


@frozen(eq=False)
class ZeroRun:
    """Pages of which only is said that they are all zero. Fields as in :class:`PageRun`."""

    block: str
    numbers: Numbers
    named: bool = False

    def __attrs_post_init__(self) -> None:
        _check_named(self.named, self.numbers)


@frozen(eq=False)
class NumberTable:
    """Numbers of 64 bits that follow each other in the stream, with nothing between them."""

    numbers: Numbers

    def __attrs_post_init__(self) -> None:
        if not len(self.numbers):
            raise ValueError("a number table has at least one number")


@frozen(eq=False)
class BarePages:
    """Pages that follow each other in the stream, with nothing between them.

    ``filled`` tells of each page whether it has content; one that has not is all zero. ``contents`` has a row of
    PAGE_SIZE bytes for each page that has. (Which pages they are is said before, in a table or a span.)
    """

    filled: Flags
    contents: Octets

    def __attrs_post_init__(self) -> None:
        if not len(self.filled) or self.contents.shape != (np.count_nonzero(self.filled), PAGE_SIZE):
            raise ValueError(
                "bare pages need at least one page, and one row of content for each that is filled"
            )


Item = Span | PageRun | ZeroRun | NumberTable | BarePages


def pages(item: Item) -> int:
    """How many pages with content there are in an item."""
    return len(item.contents) if isinstance(item, PageRun | BarePages) else 0


def zero_pages(item: Item) -> int:
    """How many pages without content there are in an item."""
    if isinstance(item, BarePages):
        return len(item.filled) - len(item.contents)
    return len(item.numbers) if isinstance(item, ZeroRun) else 0


def _check_named(named: bool, numbers: Numbers) -> None:
    if not len(numbers) or (named and len(numbers) != 1):
        raise ValueError("a run has at least one page, a named run exactly one")
