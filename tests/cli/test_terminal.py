"""A relocation on a real terminal: the bar, its summary, and Ctrl-C."""

from __future__ import annotations

import os
import re
import threading

import pexpect

from tests.cli.conftest import BIN
from tests.cli.console_guest import WAIT_S
from tests.cli.control_server import ControlServer, outcome, progress


def migrate(*arguments: str, columns: int = 80) -> pexpect.spawn[str]:
    """Run ``relocctl migrate --live web hostb`` on a terminal."""
    environment = {key: value for key, value in os.environ.items() if key not in ("COLUMNS", "NO_COLOR")}
    return pexpect.spawn(
        str(BIN / "relocctl"),
        ["migrate", "--live", "web", "hostb", *arguments],
        encoding="utf-8",
        timeout=WAIT_S,
        dimensions=(24, columns),
        env=environment | {"TERM": "xterm"},
    )


def plain(screen: str) -> str:
    """The text on a screen, without escape sequences."""
    return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", screen)


def gated(server: ControlServer, percents: list[float]) -> list[threading.Event]:
    """Let the server answer with a progress object for each percentage, each behind a gate."""
    gates = [threading.Event() for _ in percents]
    steps = [
        step
        for number, (gate, percent) in enumerate(zip(gates, percents, strict=True), 1)
        for step in (gate, progress("memory", number, percent))
    ]
    last = threading.Event()
    server.answer("migrate", *steps, last, outcome())
    return [*gates, last]


def test_the_bar_moves_forward_only_and_leaves_a_summary(server: ControlServer) -> None:
    gates = gated(server, [10, 60, 40, 90])
    child = migrate()
    seen = ""
    for gate, number in zip(gates, (1, 2, 3, 4), strict=False):
        gate.set()
        child.expect(f"round {number}")
        child.expect("%")  # the same frame to its end
        seen += str(child.before)
    gates[-1].set()
    child.expect(pexpect.EOF)
    seen += str(child.before)
    shown = [int(text) for text in re.findall(r"(\d+)%", plain(seen))]
    assert shown == sorted(shown)
    last = plain(seen).rstrip().splitlines()[-1]
    assert last.endswith(
        "Domain 'web' is on hostb now: live, 3 rounds, 10.2 s, downtime 41 ms, blackout about 67 ms, "
        "372.0 MiB sent, relocation r1."
    )
    assert child.wait() == 0


def test_the_bar_fits_eighty_columns_with_all_its_numbers(server: ControlServer) -> None:
    gates = gated(server, [35])
    child = migrate()
    gates[0].set()
    child.expect("web to hostb +memory, round 1 .* 35% +110.0 MiB/s, 332.8 MiB left +ETA 6.5 s")
    assert len(plain(str(child.after))) <= 80
    assert "…" not in str(child.after)
    gates[-1].set()
    child.expect(pexpect.EOF)


def test_ctrl_c_cancels_the_relocation(server: ControlServer) -> None:
    gates = gated(server, [10])
    server.answer(
        "cancel", outcome("failed", event="result", error="cancelled by an operator", hint="It runs on here.")
    )
    child = migrate()
    gates[0].set()
    child.expect("round 1")
    child.sendintr()
    child.expect(re.escape("\x1b[?25h"))  # the cursor is back
    child.expect(r"cancelled by an operator\r\n")
    child.expect(r"It runs on here\.")
    child.expect(pexpect.EOF)
    assert child.wait() == 130
    gates[-1].set()


def test_no_bar_for_json(server: ControlServer) -> None:
    gates = gated(server, [10])
    for gate in gates:
        gate.set()
    child = migrate("--json")
    child.expect(pexpect.EOF)
    assert "\x1b" not in str(child.before)
    assert '"outcome": "completed"' in str(child.before)
