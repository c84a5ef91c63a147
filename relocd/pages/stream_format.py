"""The formats of hypervisors' streams that have a name. ``codecs`` has what understands them; this needs nothing."""

from __future__ import annotations

import enum


class StreamFormat(enum.StrEnum):
    """What a driver says of its stream. A codec that does not understand a stream carries it all the same."""

    OPAQUE = "opaque"  # nothing is known of it: it travels as it is
    QEMU = "qemu"  # QEMU's plain migration stream
    XEN = "xen"  # xl's, libxl's or libxc's stream
