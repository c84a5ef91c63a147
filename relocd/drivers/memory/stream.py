"""How a guest in memory travels: a header, pages as often as they change, an end, and one byte of answer.

header  "MEMGUEST" be32 pages          page  "P" be32 index, 1024 bytes
end     "E" be64 counter in us         answer  "Y" loaded
"""

from __future__ import annotations

import asyncio
import struct
from collections.abc import Awaitable, Callable, Iterable

from relocd.drivers.memory.guest import PAGE_BYTES, Guest, version_of

_HEADER = struct.Struct(">8sI")
_PAGE = struct.Struct(">cI")
_END = struct.Struct(">cQ")
_MAGIC = b"MEMGUEST"
LOADED = b"Y"

Send = Callable[[bytes], Awaitable[None]]


async def send_header(send: Send, guest: Guest) -> None:
    """Say how much memory will come."""
    await send(_HEADER.pack(_MAGIC, len(guest.versions)))


async def send_pages(send: Send, guest: Guest, indices: Iterable[int]) -> None:
    """Send pages as they are now."""
    for index in indices:
        await send(_PAGE.pack(b"P", index) + guest.page(index))


async def send_end(send: Send, guest: Guest) -> None:
    """Send what is left to know once the guest is paused."""
    await send(_END.pack(b"E", int(guest.counter_ms * 1000)))


async def receive(reader: asyncio.StreamReader, guest: Guest) -> None:
    """Fill ``guest`` from a stream. Raises ValueError if it is damaged, IncompleteReadError if it breaks off."""
    magic, pages = _HEADER.unpack(await reader.readexactly(_HEADER.size))
    if magic != _MAGIC or pages != len(guest.versions):
        raise ValueError("the stream is not of this guest")
    missing = set(range(pages))
    while (kind := await reader.readexactly(1)) == b"P":
        _, index = _PAGE.unpack(kind + await reader.readexactly(_PAGE.size - 1))
        if index >= pages:
            raise ValueError(f"there is no page {index}")
        guest.write(index, version_of(index, await reader.readexactly(PAGE_BYTES)))
        missing.discard(index)
    if kind != b"E" or missing:
        raise ValueError("the stream ends before all memory has come")
    _, counter_us = _END.unpack(kind + await reader.readexactly(_END.size - 1))
    guest.counter_ms = counter_us / 1000
