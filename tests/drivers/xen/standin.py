"""A stand-in for xl and its Xen: domains are entries of a file, streams are real in form and full of made-up pages.

It follows xl 4.17 step by step where relocd depends on it (tools/xl/xl_migrate.c, xl_saverestore.c): messages, names,
pause counts, what happens when a stream breaks. That xl and Xen really do so is tested on real hosts, in tests/xen.

    python -m tests.drivers.xen.standin DIRECTORY WORDS...      is what a file "xl" on the PATH runs
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import re
import signal
import struct
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from relocd.drivers.xen.framing import BadStream, Moment, walk
from relocd.drivers.xen.keeper import BANNER, GO, READY, REPORT

STATE = "xen.json"
_PAGES_A_RECORD = 16
_RECORDS = 40
_POLL_S = 0.005
_PATIENCE_S = 20.0

Fields = dict[str, Any]


def framed(kind: int, body: bytes = b"") -> bytes:
    """A record, of libxl or libxc; its body is a multiple of eight."""
    return struct.pack("<II", kind, len(body)) + body


_CONFIG = b'{"c_info": {}}\0'
#: All up to where pages come: xl's header and configuration, libxl's, the libxc context's, STATIC_DATA_END.
HEADERS = b"".join(
    [
        b"Xen saved domain, xl format\n \0 \r",
        struct.pack("<IIIII", 0x01020304, 3, 0, 4 + len(_CONFIG), len(_CONFIG)) + _CONFIG,
        b"LibxlFmt" + struct.pack(">II", 2, 0) + framed(1),
        b"\xff" * 8 + b"XENF" + struct.pack(">IHHI", 3, 0, 0, 0) + struct.pack("<IHHII", 2, 12, 0, 4, 17),
        framed(0x10),
    ]
)


class Failed(Exception):
    """xl gives up."""


@contextlib.contextmanager
def state(directory: Path) -> Iterator[Fields]:
    """All domains by domid, to be looked at and changed by one at a time."""
    with (directory / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        path = directory / STATE
        found = json.loads(path.read_text()) if path.exists() else {"last": 0, "domains": {}}
        before = json.dumps(found)
        yield found
        if json.dumps(found) != before:
            path.with_suffix(".new").write_text(json.dumps(found))
            path.with_suffix(".new").rename(path)


class Xl:
    """One run of it."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    def run(self, words: list[str]) -> None:
        verb, *rest = words
        verbs: dict[str, Callable[..., None]] = {
            "info": self.do_info,
            "list": self.do_list,
            "create": self.do_create,
            "destroy": self.do_destroy,
            "rename": self.do_rename,
            "pause": self.do_pause,
            "unpause": self.do_unpause,
            "shutdown": self.do_shutdown,
            "reboot": self.do_reboot,
            "save": self.do_save,
            "restore": self.do_restore,
            "migrate": self.do_migrate,
        }
        verbs[verb](*rest)

    @contextlib.contextmanager
    def domain(self, domid: str) -> Iterator[Fields]:
        with state(self.directory) as xen:
            if domid not in xen["domains"]:
                raise Failed(f"{domid} is an invalid domain identifier (rc=-6)")
            yield xen["domains"][domid]

    def do_info(self) -> None:
        print("xen_version : 4.17.5\nfree_memory : 900\nvirt_caps : pv hvm hap")
        print("xen_caps : xen-3.0-x86_64 hvm-3.0-x86_64")

    def do_list(self, *_: str) -> None:
        print("Name ID Mem VCPUs State Time(s) UUID")
        with state(self.directory) as xen:
            for domid, each in xen["domains"].items():
                shut = each["shutdown"]
                letters = "--" + ("p" if each["paused"] else "-") + ("s" + shut if shut else "--") + "-"
                print(f"{each['name']}  {domid} {each['memory']} 1 {letters} 1.5 {each['uuid']} - -")

    def build(self, path: str, *, paused: int) -> str:
        text = Path(path).read_text()
        value = {key: re.search(rf'^{key} = "?([^"\n]*)', text, re.M) for key in ("name", "uuid", "memory")}
        fields = {key: match[1] for key, match in value.items() if match}
        with state(self.directory) as xen:
            if any(each["name"] == fields["name"] for each in xen["domains"].values()):
                raise Failed(f'Domain with name "{fields["name"]}" already exists.')
            xen["last"] += 1
            xen["domains"][str(xen["last"])] = {**fields, "paused": paused, "shutdown": ""}
            return str(xen["last"])

    def do_create(self, *words: str) -> None:
        self.build(words[-1], paused=int("-p" in words))

    def do_destroy(self, domid: str) -> None:
        with state(self.directory) as xen:
            xen["domains"].pop(domid, None)

    def do_rename(self, domid: str, name: str) -> None:
        with state(self.directory) as xen:
            if any(each["name"] == name for each in xen["domains"].values()):
                raise Failed(f'Domain with name "{name}" already exists.')
            xen["domains"][domid]["name"] = name

    def do_pause(self, domid: str) -> None:
        with self.domain(domid) as domain:
            domain["paused"] += 1

    def do_unpause(self, domid: str) -> None:
        with self.domain(domid) as domain:
            domain["paused"] = max(0, domain["paused"] - 1)

    def do_shutdown(self, domid: str) -> None:
        with self.domain(domid) as domain:
            domain["shutdown"] = "-"

    def do_reboot(self, domid: str) -> None:
        with self.domain(domid) as domain:
            domain["shutdown"] = "r"

    # -- streams

    def do_save(self, flag: str, domid: str, path: str) -> None:
        assert flag == "-p"
        with Path(path).open("wb", buffering=0) as stream:
            try:
                self.send(stream.fileno(), domid, rounds=0)
            except OSError:
                self.resume(domid)
                raise
        with self.domain(domid) as domain:
            domain["paused"] += 1
            domain["shutdown"] = ""

    def do_migrate(self, _: str, command: str, domid: str, host: str) -> None:
        signal.signal(signal.SIGPIPE, signal.SIG_IGN)
        line = f"exec {command} {host} xl migrate-receive"
        with subprocess.Popen(
            ["sh", "-c", line], stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0
        ) as ssh:
            assert ssh.stdin is not None
            assert ssh.stdout is not None
            there, back = ssh.stdin.fileno(), ssh.stdout.fileno()
            try:
                self.expect(back, BANNER)
                self.send(there, domid, rounds=3)
                self.expect(back, READY)
            except (OSError, Failed):
                self.resume(domid)
                raise
            with self.domain(domid) as domain:
                name = domain["name"]
                domain["name"] += "--migratedaway"
            os.write(there, GO)
            self.expect(back, REPORT)
            if os.read(back, 1) == b"\0":
                self.do_destroy(domid)
                return
            self.expect(back, GO)
            self.do_rename(domid, name)
            self.resume(domid)
            raise Failed("Migration failed due to problems at target.")

    def do_restore(self, *words: str) -> None:
        with Path(words[-1]).open("rb") as stream:
            domid, steps = "", walk()
            try:
                step = next(steps)
                while True:
                    if isinstance(step, Moment):
                        if step is Moment.BEGUN:
                            domid = self.build(words[-2], paused=1)
                        step = next(steps)
                        continue
                    data = stream.read(step[1])
                    if len(data) < step[1] or (domid and domid not in self.domids()):
                        raise Failed("libxl: error: the stream is truncated, or its domain gone")
                    step = steps.send(data)
            except StopIteration:
                pass
            except (BadStream, Failed) as error:
                self.do_destroy(domid)
                raise Failed(f"libxl: error: {error}") from error

    def send(self, there: int, domid: str, *, rounds: int) -> None:
        """Header, passes over memory, the guest's own suspension, the last pages, state, end."""
        write(there, HEADERS)
        for _ in range(rounds):
            self.send_pages(there, domid)
        self.suspend(domid)
        self.send_pages(there, domid)
        write(there, framed(8, bytes(24)) + framed(9, bytes(512)) + framed(0) + framed(0))

    def send_pages(self, there: int, domid: str) -> None:
        for record in range(_RECORDS):
            numbers = range(record * _PAGES_A_RECORD, (record + 1) * _PAGES_A_RECORD)
            head = struct.pack(f"<II{len(numbers)}Q", len(numbers), 0, *numbers)
            write(there, framed(1, head + b"".join(bytes([number & 0xFF]) * 4096 for number in numbers)))
            if domid not in self.domids():
                raise Failed("libxl: error: the domain is gone")

    def suspend(self, domid: str) -> None:
        """Only a guest that runs suspends itself."""
        deadline = time.monotonic() + _PATIENCE_S
        while time.monotonic() < deadline:
            with self.domain(domid) as domain:
                if not domain["paused"]:
                    domain["shutdown"] = "s"
                    return
            time.sleep(_POLL_S)
        raise Failed("libxl: error: guest did not suspend, timed out")

    def resume(self, domid: str) -> None:
        with contextlib.suppress(Failed), self.domain(domid) as domain:
            if domain["shutdown"] == "s":
                domain["shutdown"] = ""

    def expect(self, back: int, message: bytes) -> None:
        got = b""
        while len(got) < len(message):
            piece = os.read(back, len(message) - len(got))
            if not piece:
                raise Failed("libxl: error: truncated reading from the migration receiver")
            got += piece
        if got != message:
            raise Failed(f"libxl: error: {got!r}")

    def domids(self) -> set[str]:
        with state(self.directory) as xen:
            return set(xen["domains"])


def write(there: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(there, view) :]


def main(directory: str, *words: str) -> None:
    try:
        Xl(Path(directory)).run(list(words))
    except (Failed, OSError) as error:
        print(error, file=sys.stderr)
        sys.exit(1)


if __name__ == "__main__":
    main(*sys.argv[1:])
