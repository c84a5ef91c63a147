"""Where xl's stream begins, turns and ends, without its contents. Pure, and of the standard library only.

    xl header (48 bytes), optional data; libxl header (16), records; libxc image and domain headers (24, 16), records

A libxl record LIBXC_CONTEXT is followed by a whole libxc stream, up to whose END record; then libxl's records go on,
up to theirs (docs/specs/libxl-migration-stream and libxc-migration-stream of Xen). A record is a type, a length and a
body, filled up to a multiple of 8.
"""

from __future__ import annotations

import enum
from collections.abc import Generator
from struct import unpack_from

XL_HEADER_BYTES = 48
_OPTIONAL_LENGTH_AT = 44
_LIBXL_HEADER_BYTES = 16
_LIBXC_HEADERS_BYTES = 24 + 16
_RECORD_BYTES = 8
_PAGES_HEAD_BYTES = 16

_MAGIC = b"Xen saved domain, xl format\n \0 \r"
_RECORD_MAX_BYTES = 128 << 20
_OPTIONAL_MAX_BYTES = 16 << 20

_END = 0
_LIBXL_LIBXC_CONTEXT = 1
_PAGE_DATA = 1
#: Records of libxc that come before the guest is suspended for the last time: PV_INFO, P2M_FRAMES, VERIFY,
#: STATIC_DATA_END, CPUID_POLICY, MSR_POLICY. All others but pages come after that.
_BEFORE_SUSPENSION = frozenset({2, 3, 0x0D, 0x10, 0x11, 0x12})
_PFN_MASK = (1 << 52) - 1


class Moment(enum.Enum):
    """What a stream tells by the way."""

    BEGUN = "begun"  # libxc's headers are out: the guest is asked to suspend next, if it is not live
    ROUND = "round"  # another pass over memory begins
    PAGES = "pages"  # a record of pages
    SUSPENDED = "suspended"  # device state comes: the guest stands still
    ENDED = "ended"


class BadStream(ValueError):
    """This is not what xl writes."""


#: Asked for: take so many bytes and give them back (``inside``), or pass so many on without looking.
Want = tuple[str, int]
Walk = Generator[Want | Moment, bytes, None]


def walk() -> Walk:
    """Follow one stream: yields ``("read", n)``, to be sent those bytes, ``("pass", n)``, and moments.

    Whoever drives this passes every byte on, those it read, too. Raises BadStream.
    """
    header = yield from _read(XL_HEADER_BYTES)
    if header[: len(_MAGIC)] != _MAGIC:
        raise BadStream("it does not begin as xl's streams do")
    (optional,) = unpack_from("<I", header, _OPTIONAL_LENGTH_AT)
    if optional > _OPTIONAL_MAX_BYTES:
        raise BadStream(f"it announces a configuration of {optional} bytes")
    yield from _pass(optional)
    yield from _pass(_LIBXL_HEADER_BYTES)
    while True:
        kind, length = yield from _record()
        yield from _pass(length)
        if kind == _END:
            break
        if kind == _LIBXL_LIBXC_CONTEXT:
            yield from _libxc()
    yield Moment.ENDED


def _libxc() -> Walk:
    yield from _pass(_LIBXC_HEADERS_BYTES)
    yield Moment.BEGUN
    first = -1
    suspended = False
    while True:
        kind, length = yield from _record()
        if kind == _PAGE_DATA and length >= _PAGES_HEAD_BYTES:
            head = yield from _read(_PAGES_HEAD_BYTES)
            pfn = unpack_from("<Q", head, 8)[0] & _PFN_MASK
            if pfn <= first or first < 0:
                yield Moment.ROUND
            first = pfn
            yield from _pass(length - _PAGES_HEAD_BYTES)
            yield Moment.PAGES
            continue
        if not suspended and first >= 0 and kind not in _BEFORE_SUSPENSION:
            suspended = True
            yield Moment.SUSPENDED
        yield from _pass(length)
        if kind == _END:
            return


def _record() -> Generator[Want | Moment, bytes, tuple[int, int]]:
    """A record's type, and the length of its body with what fills it up."""
    head = yield from _read(_RECORD_BYTES)
    kind, length = unpack_from("<II", head)
    if length > _RECORD_MAX_BYTES:
        raise BadStream(f"a record announces {length} bytes")
    return kind, (length + 7) & ~7


def _read(size: int) -> Generator[Want | Moment, bytes, bytes]:
    data = yield "read", size
    return data


def _pass(size: int) -> Walk:
    if size:
        yield "pass", size
