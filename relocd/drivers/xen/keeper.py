"""The process between xl and relocd for one relocation on one side: it outlives the daemon, and so does its xl.

    python -m relocd.drivers.xen.keeper MODE DIRECTORY SUBJECT [paused]      the carrier's stream is descriptor 3

    live    ``xl migrate`` of the domid SUBJECT, this process being what it is connected to
    still   ``xl save -p`` of the domid SUBJECT: suspended first, and kept paused here once all is out
    arrive  ``xl restore -p`` by the configuration file SUBJECT: built, loaded and left paused

What happens is told in words, one a line, to whoever is connected to ``DIRECTORY/keeper.sock`` (what was told before
comes first), and written to ``DIRECTORY/story``, for a daemon that comes after the end of this process:

    progress ROUND BYTES    of the stream, now and then; not in the story
    suspended               the guest stands still; what is left of the stream waits for the command switch-over
    held                    the stream is complete, and xl will not let the domain run by itself any more
    loaded                  the domain is here, complete and paused
    home TEXT               xl has ended, the domain is as it was; TEXT says why
    released                xl has destroyed the domain, as it was told
    failed TEXT             xl has ended otherwise

Commands are ``switch-over`` (once suspended), ``cancel`` (at any moment) and ``release`` (once held). docs/xen.md has
xl's own messages beside them.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import select
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

from relocd.drivers.xen.framing import BadStream, Moment, walk

SOCKET, STORY, TRANSPORT_SOCKET = "keeper.sock", "story", "transport.sock"
STREAM_FD = 3

#: xl's messages, byte for byte (tools/xl/xl.h and xl_migrate.c of Xen 4.17).
BANNER = b"xl migration receiver ready, send binary domain data.\n"
READY = b"domain received, ready to unpause\0"
GO = b"domain is yours, you are cleared to unpause\0"
REPORT = b"my copy unpause results are as follows\0"
SUCCESS, FAILURE = b"\0", b"\1"

_CHUNK_BYTES = 1 << 20
_PIPE_BYTES = 1 << 18
_PROGRESS_S = 0.25
_TRANSPORT_S = 60.0


class Broken(Exception):
    """The stream cannot go on; str() says why."""


class Story:
    """What has happened, for all who listen, now or later; and the commands that they give."""

    def __init__(self, directory: Path) -> None:
        self._lock = threading.Lock()
        self._lines: list[str] = []
        self._clients: list[socket.socket] = []
        self._file = (directory / STORY).open("w")
        self._wake_read, self._wake_write = os.pipe()
        self.commands: set[str] = set()
        self.on_cancel: Callable[[], None] = lambda: None
        path = directory / SOCKET
        path.unlink(missing_ok=True)
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._listener.bind(str(path))
        self._listener.listen(4)
        threading.Thread(target=self._accept, daemon=True).start()

    def tell(self, line: str, *, keep: bool = True) -> None:
        """Say one line; it is on its way when this returns."""
        line = " ".join(line.split()) + "\n"
        with self._lock:
            if keep:
                self._lines.append(line)
                self._file.write(line)
                self._file.flush()
            for client in tuple(self._clients):
                try:
                    client.sendall(line.encode())
                except OSError:
                    self._clients.remove(client)

    def wait(self, *others: int, timeout_s: float | None = None, gone: int = -1) -> set[int]:
        """Wait for a command, for one of these descriptors to be readable, or for the other end of ``gone`` to go.

        Those it happened to; a command only counts once.
        """
        poll = select.poll()
        for descriptor in (self._wake_read, *others):
            poll.register(descriptor, select.POLLIN)
        if gone >= 0:
            poll.register(gone, 0)
        found = {descriptor for descriptor, _ in poll.poll(None if timeout_s is None else timeout_s * 1000)}
        if self._wake_read in found:
            os.read(self._wake_read, _CHUNK_BYTES)
        return found

    def _accept(self) -> None:
        while True:
            client, _ = self._listener.accept()
            with self._lock, contextlib.suppress(OSError):
                client.sendall("".join(self._lines).encode())
                self._clients.append(client)
            threading.Thread(target=self._listen, args=(client,), daemon=True).start()

    def _listen(self, client: socket.socket) -> None:
        with contextlib.suppress(OSError), client.makefile("r") as lines:
            for line in lines:
                self.commands.add(line.strip())
                os.write(self._wake_write, b"!")
                if "cancel" in self.commands:
                    self.on_cancel()


class Keeper:
    """One xl and its stream."""

    def __init__(self, directory: Path, subject: str, stream: socket.socket, *, was_paused: bool) -> None:
        self.directory = directory
        self.subject = subject
        self.stream = stream
        self.was_paused = was_paused
        self.story = Story(directory)
        self.story.on_cancel = self._unblock
        self.xl: subprocess.Popen[bytes] | None = None
        self.xl_end = -1
        self._round = self._bytes = 0
        self._told_s = 0.0
        self._unpaused = False

    def start_xl(
        self, *words: str, stdin: int = subprocess.DEVNULL, stdout: int = subprocess.DEVNULL
    ) -> None:
        """Start xl; from then on ``xl_end`` is readable once it has ended."""
        self.xl = subprocess.Popen(["xl", *words], stdin=stdin, stdout=stdout)
        self.xl_end = os.pidfd_open(self.xl.pid)

    def wait_xl(self) -> int:
        """Wait until xl has ended; its exit code."""
        assert self.xl is not None
        return self.xl.wait()

    def _unblock(self) -> None:
        """Whoever is writing to the carrier, or waiting for it, comes back with an error."""
        with contextlib.suppress(OSError):
            self.stream.shutdown(socket.SHUT_RDWR)

    def _reason(self, error: Exception) -> str:
        return "the relocation was cancelled" if "cancel" in self.story.commands else str(error)

    # -- the source's side

    def live(self) -> None:
        """``xl migrate``: through to the end that is commanded."""
        reading, writing, transport = self._be_the_transport()

        def hang_up() -> None:
            """xl finds both pipes closed."""
            for descriptor in (reading, writing):
                os.close(descriptor)
            transport.close()

        try:
            os.write(writing, BANNER)
            self._relay(reading)
            os.write(writing, READY)
            self._expect_go(reading)
        except (Broken, BadStream, OSError) as error:
            hang_up()  # for which xl resumes the domain
            self.stream.close()
            self.wait_xl()
            self.story.tell(f"home {self._reason(error)}")
            return
        self.story.tell("held")
        self._decide(writing, hang_up)

    def _be_the_transport(self) -> tuple[int, int, socket.socket]:
        """Start xl and take over the pipes of what it believes to be ssh. Ends this process if there is none."""
        path = self.directory / TRANSPORT_SOCKET
        path.unlink(missing_ok=True)
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
            listener.bind(str(path))
            listener.listen(1)
            program = Path(__file__).with_name("transport.py")
            self.start_xl("migrate", "-s", f"{sys.executable} -I -S {program} {path}", self.subject, "relocd")
            ready = self.story.wait(listener.fileno(), self.xl_end, timeout_s=_TRANSPORT_S)
            if listener.fileno() not in ready:
                self._give_up()
            connection, _ = listener.accept()
        path.unlink()
        _, descriptors, _, _ = socket.recv_fds(connection, 16, 2)
        if len(descriptors) != 2:
            self._give_up()
        _widen(descriptors[0])
        return descriptors[0], descriptors[1], connection

    def _give_up(self) -> None:
        """xl did not even begin; what it was about to send stays as it is."""
        assert self.xl is not None
        if self.xl.poll() is None:
            self.xl.terminate()
        self.wait_xl()
        self.stream.close()
        self.story.tell("home xl did not begin")
        raise SystemExit(1)

    def _expect_go(self, reading: int) -> None:
        """xl says it when it has put the decision into other hands; it does not resume by itself any more."""
        got = b""
        while len(got) < len(GO):
            # No command is heard here: xl is about to write, and its answer decides what a cancel has to do.
            piece = os.read(reading, len(GO) - len(got))
            if not piece:
                raise Broken("xl gave up after the end of its stream")
            got += piece
        if got != GO:
            raise Broken("xl says something else than that the target may begin")

    def _decide(self, writing: int, hang_up: Callable[[], None]) -> None:
        """Tell xl what the daemon says has become of the other copy."""
        while not self.story.commands & {"cancel", "release"}:
            if self.xl_end in self.story.wait(self.xl_end):
                self.story.tell("failed xl ended before the outcome was known; the domain stays suspended")
                return
        cancelled = "cancel" in self.story.commands
        with contextlib.suppress(OSError):  # xl has ended, as its exit code tells
            os.write(writing, REPORT + (FAILURE + GO if cancelled else SUCCESS))
        hang_up()
        code = self.wait_xl()
        if cancelled:
            self.story.tell("home as was commanded")
        elif code:
            self.story.tell(f"failed xl ended with status {code}")
        else:
            self.story.tell("released")

    def still(self) -> None:
        """``xl save -p``: suspends the domain, writes it out, and leaves it paused if all of it could be written."""
        reading, writing = _pipe()
        self.start_xl("save", "-p", self.subject, "/dev/stdout", stdout=writing)
        os.close(writing)
        try:
            self._relay(reading)
        except (Broken, BadStream, OSError) as error:
            pausing = self.was_paused and self._unpaused
            if pausing:  # before xl resumes it
                subprocess.run(["xl", "pause", self.subject], check=False)
            os.close(reading)
            self.stream.close()
            code = self.wait_xl()
            if pausing and code == 0:  # xl has paused it, too, and Xen counts
                subprocess.run(["xl", "unpause", self.subject], check=False)
            # What xl had written to the end it regards as saved, and has left paused.
            self.story.tell("held" if code == 0 else f"home {self._reason(error)}")
            return
        code = self.wait_xl()
        self.story.tell("held" if code == 0 else f"failed xl ended with status {code}")

    def _relay(self, reading: int) -> None:
        """Pass xl's stream on up to its end, and tell what it tells."""
        steps = walk()
        answer = b""
        try:
            step = next(steps)
            while True:
                if isinstance(step, Moment):
                    self._note(step)
                    step = next(steps)
                    continue
                how, size = step
                answer = self._take(reading, size) if how == "read" else self._pass(reading, size)
                step = steps.send(answer)
        except StopIteration:
            with contextlib.suppress(OSError):  # the carrier has seen the end of it and is gone
                self.stream.shutdown(socket.SHUT_WR)

    def _note(self, moment: Moment) -> None:
        if moment is Moment.BEGUN and self.was_paused:
            # Only the guest itself can suspend itself, for which it runs a moment.
            subprocess.run(["xl", "unpause", self.subject], check=False)
            self._unpaused = True
        elif moment is Moment.ROUND:
            self._round += 1
        elif moment is Moment.SUSPENDED:
            self.story.tell("suspended")
            while "switch-over" not in self.story.commands:
                self._heed(self.story.wait(gone=self.stream.fileno()))
        if time.monotonic() - self._told_s > _PROGRESS_S or moment is Moment.ENDED:
            self._told_s = time.monotonic()
            self.story.tell(f"progress {self._round} {self._bytes}", keep=False)

    def _take(self, reading: int, size: int) -> bytes:
        """Read exactly so much, and pass it on."""
        data = b""
        while len(data) < size:
            self._await(reading)
            piece = os.read(reading, size - len(data))
            if not piece:
                raise Broken("xl ended its stream")
            data += piece
        self._bytes += size
        self.stream.sendall(data)
        return data

    def _pass(self, reading: int, size: int) -> bytes:
        """Move so much from the pipe to the carrier without looking at it."""
        while size:
            self._await(reading)
            moved = os.splice(reading, self.stream.fileno(), min(size, _CHUNK_BYTES))
            if not moved:
                raise Broken("xl ended its stream")
            size -= moved
            self._bytes += moved
        return b""

    def _await(self, reading: int) -> None:
        """Return when there is something to read; raise Broken if there is a command, or no carrier any more."""
        ready: set[int] = set()
        while reading not in ready:
            ready = self.story.wait(reading, gone=self.stream.fileno())
            self._heed(ready)

    def _heed(self, ready: set[int]) -> None:
        if "cancel" in self.story.commands:
            raise Broken("the relocation was cancelled")
        if self.stream.fileno() in ready:
            raise Broken("nobody takes the stream any more")

    # -- the target's side

    def arrive(self) -> None:
        """``xl restore -p``: everything that comes, until xl has ended."""
        reading, writing = _pipe()
        self.start_xl("restore", "-e", "-p", self.subject, "/dev/stdin", stdin=reading)
        os.close(reading)
        with contextlib.suppress(OSError):  # xl has ended, as its exit code tells
            self._feed(writing)
        os.close(writing)
        code = self.wait_xl()
        self.story.tell("loaded" if code == 0 else f"failed xl ended with status {code}")
        self.stream.close()

    def _feed(self, writing: int) -> None:
        while True:
            ready = self.story.wait(self.stream.fileno(), self.xl_end)
            if "cancel" in self.story.commands or self.xl_end in ready:
                return
            if self.stream.fileno() in ready and not os.splice(self.stream.fileno(), writing, _CHUNK_BYTES):
                return


def _pipe() -> tuple[int, int]:
    reading, writing = os.pipe()
    _widen(writing)
    return reading, writing


def _widen(pipe: int) -> None:
    """Have it take more at a time than 64 KiB, so that each side is woken less often."""
    with contextlib.suppress(OSError):  # the user's share of pipe memory may be used up
        fcntl.fcntl(pipe, fcntl.F_SETPIPE_SZ, _PIPE_BYTES)


def main(argv: list[str]) -> None:
    """Do what the mode says, and end."""
    mode, directory, subject, *rest = argv
    stream = socket.socket(fileno=STREAM_FD)
    os.set_inheritable(STREAM_FD, False)
    keeper = Keeper(Path(directory), subject, stream, was_paused="paused" in rest)
    {"live": keeper.live, "still": keeper.still, "arrive": keeper.arrive}[mode]()


if __name__ == "__main__":
    main(sys.argv[1:])
