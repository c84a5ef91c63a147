"""The smallest images in qcow2 format that QEMU opens, with what they rest on (docs/interop/qcow2.txt of QEMU)."""

from __future__ import annotations

import struct
from pathlib import Path

_CLUSTER_BITS = 16
_CLUSTER = 1 << _CLUSTER_BITS
EXTERNAL_DATA = 1 << 2
_BACKING_FORMAT, _DATA_FILE = 0xE2792ACA, 0x44415441


def write_qcow2(
    path: Path,
    *,
    backing: str = "",
    backing_format: str = "",
    data_file: str = "",
    size_bytes: int = 1 << 20,
    cluster_bits: int = _CLUSTER_BITS,
    version: int = 3,
) -> Path:
    """An image in which nothing was written yet: header, table and block of reference counts, table of clusters."""
    extensions = b"".join(
        struct.pack("!II", kind, len(text)) + text.encode().ljust(-(-len(text) // 8) * 8, b"\0")
        for kind, text in ((_BACKING_FORMAT, backing_format), (_DATA_FILE, data_file))
        if text
    )
    length = 104 if version > 2 else 72
    place = length + len(extensions) + 8
    header = struct.pack(
        "!4sIQIIQIIQQIIQ",
        *(b"QFI\xfb", version, place if backing else 0, len(backing.encode()), cluster_bits, size_bytes),
        *(0, 1, 3 * _CLUSTER),  # no encryption; one entry for clusters, in the fourth cluster
        *(_CLUSTER, 1, 0, 0),  # reference counts in the second; no snapshots
    )
    features = EXTERNAL_DATA if data_file else 0
    if version > 2:
        header += struct.pack("!QQQII", features, 0, 0, 4, length)
    head = header + extensions + bytes(8) + backing.encode()
    counts = struct.pack("!4H", 1, 1, 1, 1)
    clusters = (head, struct.pack("!Q", 2 * _CLUSTER), counts, bytes(8))
    path.write_bytes(b"".join(cluster.ljust(_CLUSTER, b"\0") for cluster in clusters))
    return path
