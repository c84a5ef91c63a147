"""What a disk image rests on. A qcow2 image names other files, which its reader opens; whoever writes the image, a
peer on shared storage among them, chooses the names. Everything here blocks.

Layout: docs/interop/qcow2.txt of QEMU. Numbers are big-endian.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterable, Iterator
from typing import Final

from attrs import frozen

from relocd.errors import DriverError
from relocd.preflight.rules import within

MAX_LAYERS: Final = 16
"""QEMU has no limit but its memory; a chain this long is slow and most likely a ring."""

FORMATS: Final = ("raw", "qcow2")

_DEVICES: Final = ("/dev",)
_MAGIC: Final = b"QFI\xfb"
_FIXED: Final = struct.Struct("!4sIQI")  # magic, version, where the backing file's name is, how long it is
_FEATURES_AT, _LENGTH_AT = 72, 100
_V2_LENGTH: Final = 72
_EXTENSION: Final = struct.Struct("!II")  # type, length of what follows, which is padded to 8 bytes
_BACKING_FORMAT: Final = 0xE2792ACA
_EXTERNAL_DATA: Final = 1 << 2  # of the incompatible features
_HEAD_BYTES: Final = 64 << 10
_NAME_BYTES_MAX: Final = 1023
_CLUSTER_BYTES_MAX: Final = 2 << 20
"""The name is in the first cluster."""


@frozen
class Layer:
    """One file or device of a chain, and how it is to be read."""

    path: str
    format: str


def layers(path: str, image_format: str) -> tuple[Layer, ...]:
    """An image and what it rests on, the image first. A raw one rests on nothing, whatever it holds.

    Raises DriverError if that cannot be told, or if it rests on what relocd does not open: anything but files and
    devices by their paths.
    """
    found = [Layer(path, image_format)]
    while found[-1].format == "qcow2":
        below = _below(found[-1].path)
        if below is None:
            break
        if len(found) == MAX_LAYERS:
            raise DriverError(f"disk {path} rests on more than {MAX_LAYERS - 1} images, or on itself")
        found.append(below)
    return tuple(found)


def outside(chain: Iterable[Layer], roots: tuple[str, ...]) -> Iterator[str]:
    """The paths of those that lie in none of these directories."""
    return (layer.path for layer in chain if not lies_within(layer.path, roots))


def lies_within(path: str, roots: tuple[str, ...]) -> bool:
    """Whether what a path leads to lies in one of these directories once all links are followed.

    The last link is not, where it stands in /dev and leads to /dev: there it is a device's name (/dev/vg0/web leads
    to /dev/dm-3), made by the system and by nobody else.
    """
    real, directory = os.path.realpath(path), os.path.realpath(os.path.dirname(path))  # noqa: PTH120 - a text
    real_roots = tuple(os.path.realpath(root) for root in roots)
    name = f"{directory}/{os.path.basename(path)}"  # noqa: PTH119 - likewise
    return within(real, real_roots) or (
        within(real, _DEVICES) and within(name, _DEVICES) and within(name, real_roots)
    )


def _below(path: str) -> Layer | None:
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    except OSError as error:
        raise DriverError(f"cannot open disk {path}: {error.strerror}") from error
    try:
        return _backing(descriptor, path)
    except (OSError, struct.error, UnicodeDecodeError):
        raise DriverError(f"disk {path} is no qcow2 image") from None
    finally:
        os.close(descriptor)


def _backing(descriptor: int, path: str) -> Layer | None:
    head = os.pread(descriptor, _HEAD_BYTES, 0)
    magic, version, place, size = _FIXED.unpack_from(head)
    if magic != _MAGIC or version not in (2, 3):
        raise DriverError(f"disk {path} is no qcow2 image", hint="Give its format as raw, or convert it.")
    length = _V2_LENGTH
    if version > 2:
        (features,) = struct.unpack_from("!Q", head, _FEATURES_AT)
        (length,) = struct.unpack_from("!I", head, _LENGTH_AT)
        if features & _EXTERNAL_DATA:
            raise DriverError(
                f"disk {path} keeps its data in another file, which relocd does not open",
                hint="Convert it: qemu-img convert -O qcow2.",
            )
    if not place:
        return None
    if not 0 < size <= _NAME_BYTES_MAX or place > _CLUSTER_BYTES_MAX:
        raise DriverError(f"disk {path} is no qcow2 image: the name of its backing file is nowhere")
    name = os.pread(descriptor, size, place).decode()
    return Layer(_resolved(name, path), _format(head, length, path))


def _resolved(name: str, image: str) -> str:
    """A name as QEMU reads it: a path relative to the image, unless a protocol stands before it."""
    if ":" in name.partition("/")[0] or not name.isprintable() or not name:
        raise DriverError(
            f"disk {image} rests on {name[:80]!r}, which is no path",
            hint="relocd opens files and devices only. Convert it: qemu-img convert -O qcow2.",
        )
    return os.path.join(os.path.dirname(image), name)  # noqa: PTH118, PTH120 - a text, as in a configuration


def _format(head: bytes, at: int, path: str) -> str:
    """What the image says of its backing file. QEMU would guess if it says nothing, and so obey its content."""
    while at + _EXTENSION.size <= len(head):
        kind, size = _EXTENSION.unpack_from(head, at)
        at += _EXTENSION.size
        if kind == _BACKING_FORMAT:
            said = head[at : at + size].decode()
            if said in FORMATS:
                return said
            raise DriverError(
                f"disk {path} rests on a file of format {said[:20]!r}, which relocd does not open"
            )
        if not kind:
            break
        at += -(-size // 8) * 8
    raise DriverError(
        f"disk {path} does not say of which format the file is that it rests on",
        hint=f"Say it: qemu-img rebase -u -b FILE -F raw {path}",
    )
