"""Where a fuzzer begins: what was recorded of real daemons, carriers and QEMU, and files that people write."""

from __future__ import annotations

import contextlib
import ssl
import struct
from pathlib import Path
from typing import Final

from relocd.carrier import control
from relocd.config.keys import KEYS
from relocd.config.model import L2Mode
from relocd.domain.keys import KEYS as DOMAIN_KEYS
from relocd.pages import frames
from relocd.pages.batch import BUFFER_BYTES, BatchBuilder
from relocd.pages.frames import Kind
from relocd.pages.qemu_decoder import QemuDecoder
from relocd.pages.squeeze import Compressor
from relocd.pages.zstd import ZstdDecompressor
from relocd.segment.probe import NONCE_BYTES
from relocd.segment.proof import BridgeEnd, EndState
from relocd.wire.messages import encode, known_heads
from relocd.wire.network import Probe

ROOT: Final = Path(__file__).parent.parent.parent
RECORDED: Final = Path(__file__).parent / "recorded"
#: So much of a long stream is a seed: its beginning has the framing.
CUT_BYTES: Final = 24_000

WORDS: Final = tuple(f"({head} ".encode() for head in known_heads())
CONFIG_WORDS: Final = tuple(key.name.encode() for key in KEYS)
DOMAIN_WORDS: Final = tuple(key.encode() for key in DOMAIN_KEYS)


def recorded(name: str) -> bytes:
    """What tests.fuzz.record has written down."""
    return (RECORDED / name).read_bytes()


def lines() -> tuple[bytes, ...]:
    return tuple(recorded("dialogue").splitlines())


def lane_lines() -> tuple[bytes, ...]:
    return tuple(line for line in lines() if line.startswith(b"(lane"))


def dialogues() -> tuple[bytes, ...]:
    return (recorded("dialogue"), b"help\r\n\r\n(hello)\n")


def visits() -> tuple[bytes, ...]:
    """A byte that says how it is cut, then a source's side of a dialogue, whole and message by message."""
    hello = next(line for line in lines() if line.startswith(b"(hello"))
    probe = encode(Probe("ab" * NONCE_BYTES, L2Mode.REQUIRE, (BridgeEnd("br0", EndState.READY),))).rstrip(
        b"\n"
    )
    network = (probe, b"(tunnel-use (vni 7))", b"(make-tunnel (bridge br0) (vni 7) (port 4789))")
    others = (b"\n".join((b"\x04" + hello, line, b"")) for line in (*lines(), *network))
    return (b"\x04" + recorded("dialogue"), b"\x02help\n", *others)


def lanes() -> tuple[bytes, ...]:
    return (recorded("frames"), recorded("return"), *map(_framed, batches()))


def _framed(batch: bytes) -> bytes:
    packed = Compressor().compress(batch, 1)
    if len(packed) < len(batch):
        return frames.pack(Kind.BATCH, 0, packed, decoded_bytes=len(batch)) + packed
    return frames.pack(Kind.BATCH, 0, batch) + batch


def batches() -> tuple[bytes, ...]:
    """Those that a source would make of the streams."""
    return tuple(_batch(stream) for stream in streams())


def _batch(stream: bytes) -> bytes:
    builder = BatchBuilder(memoryview(bytearray(BUFFER_BYTES)))
    for item in QemuDecoder().decode(stream)[0]:
        builder.add(item)
    return bytes(builder.seal())


def streams() -> tuple[bytes, ...]:
    """Of real QEMUs, and one with few pages."""
    return (*_golden("qemu"), _small())


def xen_streams() -> tuple[bytes, ...]:
    """Of real Xens."""
    return _golden("xen")


def _golden(hypervisor: str) -> tuple[bytes, ...]:
    files = sorted((ROOT / "tests/pages/data").glob(f"{hypervisor}-*.zst"))
    return tuple(ZstdDecompressor().decompress(path.read_bytes())[:CUT_BYTES] for path in files)


def _small() -> bytes:
    head = (
        b"QEVM"
        + struct.pack(">I", 3)
        + b"\x01"
        + struct.pack(">I", 2)
        + b"\x03ram"
        + struct.pack(">II", 0, 4)
    )
    listed = struct.pack(">Q", 1 << 20 | 4) + b"\x06pc.ram" + struct.pack(">Q", 1 << 20)
    ends = struct.pack(">Q", 0x10) + b"\x7e" + struct.pack(">I", 2)
    zero = (
        b"\x02"
        + struct.pack(">I", 2)
        + struct.pack(">Q", 2)
        + b"\x06pc.ram\0"
        + struct.pack(">QB", 0x1022, 0)
    )
    return head + listed + ends + zero + ends


def zstd_frames() -> tuple[bytes, ...]:
    return tuple(Compressor().compress(content, 3) for content in (b"x", bytes(1000), *batches()[:1]))


def changes() -> tuple[bytes, ...]:
    return (b"\x00", b"\x06\x01\x00", b"\x02\xff\x00", b"\x03\x80\x00\x09\x01\x00")


def tls_hellos() -> tuple[bytes, ...]:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    out = ssl.MemoryBIO()
    hello = context.wrap_bio(ssl.MemoryBIO(), out)
    with contextlib.suppress(ssl.SSLWantReadError):
        hello.do_handshake()
    return (out.read(), b"\x16\x03\x01\x02\x00\x01", b"\x15\x03\x03\x00\x02\x02\x28")


def texts() -> tuple[bytes, ...]:
    return (b"(a 'b\\n' \"c\\x41\" (d . e)) # f\n'\\u2028'", *configs(), *lines()[:3])


def configs() -> tuple[bytes, ...]:
    sample = (ROOT / "etc/relocd-config.sxp").read_bytes()
    settings = "".join(f"({key.name} {key.default_text})\n" for key in KEYS)
    return (settings.encode(), sample.replace(b"#(", b"("), b"(xend-relocation-hosts-allow '^a\\\\.b$ .*')")


def domain_files() -> tuple[bytes, ...]:
    classic = (
        b'name = "web"\nmemory = 128\nvcpus = 2\nkernel = "/boot/vmlinuz"\nextra = "console=ttyS0"\n'
        b"disk = ['file:/srv/web.img,xvda,w', 'phy:/dev/vg/web,xvdb,r']\n"
        b"vif = ['bridge=br0, mac=02:00:00:00:00:01']\n"
        b"on_crash = 'restart'\n"
    )
    propose = next(line for line in lines() if line.startswith(b"(propose"))
    return (classic, propose[propose.index(b"(domain (name") : propose.rindex(b"(on_crash")] + b")")


def events() -> tuple[bytes, ...]:
    totals = control.Totals(5, 1, "ab" * 16)
    some = (control.CarrierReady(), control.CarrierDigest(totals), control.CarrierFailed("stream", "why"))
    return tuple(map(control.dump_event, some))
