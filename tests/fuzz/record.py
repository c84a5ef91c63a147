"""python -m tests.fuzz.record: what two daemons say to each other in a relocation, as seeds for the fuzzer.

Written to tests/fuzz/recorded: the lines of dialogue and lanes, and the frames of the lane that follow.
"""

from __future__ import annotations

import socket
import tempfile
from pathlib import Path

from tests.daemon.rig import DOMAIN_FILE, Daemon
from tests.link import Wire, loopback

RECORDED = Path(__file__).parent / "recorded"


class Listener(Wire):
    """Writes down what passes, by connection and direction."""

    def __init__(self, port: int) -> None:
        self.heard: dict[socket.socket, bytes] = {}
        super().__init__(loopback(port))

    def _take(self, source: socket.socket, target: socket.socket) -> bytes:
        data = super()._take(source, target)
        self.heard[source] = self.heard.get(source, b"") + data
        return data


def main() -> None:
    """Record one live relocation and one check."""
    with tempfile.TemporaryDirectory(prefix="relocd-") as name:
        source, target = (Daemon(Path(name) / side) for side in ("source", "target"))
        source.client.call("create", config=DOMAIN_FILE, source="web.cfg")
        wire = Listener(target.port)
        source.client.call("check", domain="web", host="127.0.0.1", port=wire.port)
        assert source.migrate(wire.port)["outcome"] == "completed"
        lines: list[bytes] = []
        for data in wire.heard.values():
            if b"rlpF" in data:
                line, _, frames = data.partition(b"rlpF")
                lines.append(line)
                (RECORDED / ("frames" if line.startswith(b"(lane") else "return")).write_bytes(
                    b"rlpF" + frames
                )
            else:
                lines += data.splitlines(keepends=True)
        (RECORDED / "dialogue").write_bytes(b"".join(dict.fromkeys(lines)))
        wire.close()
        for daemon in (source, target):
            daemon.stop()


if __name__ == "__main__":
    main()
