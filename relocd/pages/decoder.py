"""What decoders of all formats share: the walk through a buffer, step by step, and the end of understanding.

The law is ``encode(decode(x)) == x``, byte for byte, whatever x is and however it is cut. So a decoder may know
less than the hypervisor: what it does not understand becomes a span. It never guesses.
"""

from __future__ import annotations

from collections.abc import Callable

from relocd.pages.items import Buffer, Item, Span

Found = tuple[int, Item | None]
Step = Callable[[memoryview, int], Found | None]


class Decoder:
    """Bytes in, items out, in order. Never raises on what a stream contains.

    By itself it understands nothing, and all that comes is a span. One that knows a format begins with a step of its
    own. A step looks at the bytes from a position on; it returns where the next step begins, and an item if it found
    one; or None if it needs to see more bytes.
    """

    def __init__(self, first: Step | None = None) -> None:
        self._step: Step = first or self._rest
        self._pass_bytes = 0
        self._pass_then: Step = self._rest
        self._memory_ended = False

    @property
    def opaque(self) -> bool:
        """Whether understanding has ended: only spans come from now on."""
        return self._step == self._rest

    @property
    def lost(self) -> bool:
        """Whether there was something among guest memory, or before it, that is not understood.

        False at the end of a healthy stream, where understanding ends on purpose.
        """
        return self.opaque and not self._memory_ended

    @property
    def memory_ended(self) -> bool:
        """Whether all guest memory is through."""
        return self._memory_ended

    def decode(self, buffer: Buffer) -> tuple[list[Item], int]:
        """Decode what came next; return items, which refer to ``buffer``, and how many bytes they stand for.

        The rest is incomplete, and less than a few pages long: give it again with more bytes behind it. At the end of
        the stream it is a span.
        """
        view = memoryview(buffer)
        items: list[Item] = []
        start = position = 0
        while position < len(view):
            found = self._step(view, position)
            if found is None:
                break
            end, item = found
            if item is not None:
                if start < position:
                    items.append(Span(view[start:position]))
                items.append(item)
                start = end
            position = end
        if start < position:
            items.append(Span(view[start:position]))
        return items, position

    def _rest(self, view: memoryview, position: int) -> Found:
        return len(view), None

    def _lost(self, position: int) -> Found:
        self._step = self._rest
        return position, None

    def _skip(self, position: int, size: int, then: Step) -> Found:
        """Let ``size`` bytes from ``position`` on pass unseen."""
        self._step = then
        if size:
            self._pass_bytes, self._pass_then, self._step = size, then, self._pass
        return position, None

    def _pass(self, view: memoryview, position: int) -> Found:
        size = min(self._pass_bytes, len(view) - position)
        self._pass_bytes -= size
        if not self._pass_bytes:
            self._step = self._pass_then
        return position + size, None
