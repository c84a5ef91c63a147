"""A control server for tests: speaks docs/control.md on a real unix socket, with answers that a test writes."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, Self

Json = dict[str, Any]
Step = Json | bytes | threading.Event
Answer = Callable[[Json], Iterable[Step]]

WAIT_S = 20.0


def domain(name: str, number: int, state: str = "running", **more: Any) -> Json:
    """A domain object as docs/control.md has it."""
    return {
        "name": name,
        "id": number,
        "uuid": f"00000000-0000-4000-8000-{number:012d}",
        "state": state,
        "memory_mib": 128 * number,
        "vcpus": 1,
        "cpu_time_s": 1.5 * number,
        "hypervisor": "qemu",
        "machine": "q35",
        "cpu": "qemu64",
        "accelerator": "tcg",
        "vifs": [
            {"mac": "00:16:3e:00:00:01", "bridge": "xenbr0", "model": "virtio-net", "ip": ["192.0.2.10"]}
        ],
        "disks": [{"path": "/srv/web.img", "vdev": "xvda", "format": "raw", "readonly": False}],
    } | more


def unknown_domain(reference: str) -> Json:
    """The error that relocd sends for a domain that is not here."""
    return {
        "event": "error",
        "code": "unknown-domain",
        "message": f"Domain '{reference}' does not exist.",
        "hint": "'relocctl list' shows the domains of this host.",
        "exit_code": 3,
    }


INFO: Json = {
    "version": "0.1.0",
    "host": "hosta",
    "port": 8002,
    "address": "",
    "driver": "qemu",
    "driver_version": "7.2.22",
    "accelerators": ["tcg"],
    "memory_total_mib": 16384,
    "memory_free_mib": 8192,
    "memory_reserved_mib": 0,
    "domains": 2,
    "config_file": "/etc/relocd/relocd-config.sxp",
    "state_dir": "/var/lib/relocd",
    "run_dir": "/run/relocd",
}


def progress(phase: str, number: int, percent: float, **more: Any) -> Json:
    """A progress object of a relocation with the id ``r1``."""
    return {
        "event": "progress",
        "relocation": "r1",
        "phase": phase,
        "round": number,
        "total_bytes": 512 * 2**20,
        "remaining_bytes": int(512 * 2**20 * (100 - percent) / 100),
        "sent_bytes": int(100 * 2**20 * percent / 100),
        "rate_bytes_s": 110 * 2**20,
        "dirty_rate_bytes_s": 0,
        "elapsed_s": percent / 10,
        "percent": percent,
    } | more


def outcome(kind: str = "completed", **more: Any) -> Json:
    """The outcome object of a relocation of ``web`` to ``hostb``."""
    return {
        "event": "result" if kind == "completed" else "error",
        "outcome": kind,
        "relocation": "r1",
        "domain": "web",
        "uuid": "00000000-0000-4000-8000-000000000001",
        "host": "hostb",
        "live": True,
        "rounds": 3,
        "duration_s": 10.25,
        "downtime_ms": 41,
        "blackout_ms": 67,
        "channels": 4,
        "bytes_sent": 390_070_272,
        "pages": 131072,
        "zero_pages": 65536,
        "saved_zero_bytes": 0,
        "saved_compression_bytes": 0,
        "dense_bytes": 0,
        "level_bytes": {},
        "error": None,
        "reasons": [],
        "hint": "",
    } | more


class ControlServer:
    """Answers every request with what the test set for its verb, and remembers the requests.

    An answer is a function from the request to steps: objects are sent as lines, bytes as they are, and a
    threading.Event is awaited. ``list`` and ``info`` are answered from ``domains`` and INFO.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.requests: list[Json] = []
        self.domains: list[Json] = []
        self.answers: dict[str, Answer] = {
            "list": self._list,
            "info": lambda _: [{"event": "result", **INFO}],
            **dict.fromkeys(("pause", "unpause", "shutdown", "reboot", "destroy"), self._act),
        }
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._threads: list[threading.Thread] = []

    def __enter__(self) -> Self:
        self._listener.bind(str(self.path))
        self._listener.listen()
        self._start(self._accept)
        return self

    def __exit__(self, *_exception: object) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for thread in self._threads:
            thread.join(WAIT_S)
            assert not thread.is_alive()

    def answer(self, verb: str, *steps: Step) -> None:
        """Always answer ``verb`` with these steps."""
        self.answers[verb] = lambda _: steps

    def verbs(self) -> list[str]:
        """The verbs that were asked for, in order."""
        return [request["verb"] for request in self.requests]

    def _list(self, request: Json) -> Iterable[Step]:
        found = self._matching(request.get("domain"))
        if "domain" in request and not found:
            return [unknown_domain(request["domain"])]
        return [{"event": "result", "domains": found}]

    def _act(self, request: Json) -> Iterable[Step]:
        found = self._matching(request["domain"])
        return [{"event": "result", "domain": found[0]} if found else unknown_domain(request["domain"])]

    def _matching(self, reference: str | None) -> list[Json]:
        return [d for d in self.domains if reference in (None, d["name"], str(d["id"]), d["uuid"])]

    def _start(self, target: Callable[..., None], *arguments: object) -> None:
        thread = threading.Thread(target=target, args=arguments, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:  # closed by __exit__
                return
            self._start(self._serve, connection)

    def _serve(self, connection: socket.socket) -> None:
        with connection, connection.makefile("rb") as lines:
            line = lines.readline()
            if not line:
                return
            request = json.loads(line)
            self.requests.append(request)
            for step in self.answers[request["verb"]](request):
                if isinstance(step, threading.Event):
                    assert step.wait(WAIT_S)
                    continue
                try:
                    connection.sendall(step if isinstance(step, bytes) else json.dumps(step).encode() + b"\n")
                except BrokenPipeError:  # the client left early, as it may
                    return
