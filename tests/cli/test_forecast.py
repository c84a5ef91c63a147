"""Predictions for people: told before, and put beside what came of it."""

from __future__ import annotations

import json
from typing import Any

from relocd.cli.forecast import compared, prediction_text
from relocd.cli.records import history_text
from tests.cli.conftest import Run
from tests.cli.control_server import ControlServer, domain, outcome

CHECK = {"check": "memory", "verdict": "pass", "text": "8192 MiB free", "remedy": ""}
PREDICTION: dict[str, Any] = {
    "verdict": "converges",
    "live": {"duration_s": 4.2, "downtime_ms": 60.4, "wire_bytes": 96 << 20, "rounds": 3},
    "offline": {"duration_s": 3.9, "downtime_ms": 3300.0, "wire_bytes": 90 << 20, "rounds": 1},
    "sentences": ["Live: about 4.2 s.", "Offline: about 3.9 s."],
}
OUTCOME = {
    "outcome": "completed",
    "duration_s": 5.0,
    "downtime_ms": 48.6,
    "bytes_sent": 80 << 20,
    "rounds": 4,
}


def record(**more: Any) -> dict[str, Any]:
    moment = {"kind": "prediction", "at_s": 100.0, **PREDICTION}
    return {"began_s": 100.0, "live": True, "outcome": OUTCOME, "timeline": [moment]} | more


def answer(**more: Any) -> dict[str, Any]:
    return {"event": "result", "passed": True, "checks": [CHECK], **more}


def test_history_puts_the_prediction_beside_the_outcome() -> None:
    _, predicted, came_out = compared(record())
    assert predicted.split() == ["predicted", "4.2", "s", "60", "ms", "96.0", "MiB", "3"]
    assert came_out.split() == ["came", "out", "5.0", "s", "49", "ms", "80.0", "MiB", "4"]
    text = history_text(record())
    assert predicted in text
    assert "Live: about 4.2 s." in text


def test_offline_is_compared_with_offline() -> None:
    assert "3300 ms" in compared(record(live=False))[1]


def test_what_has_no_end_is_told_so() -> None:
    moment = {"kind": "prediction", **PREDICTION, "live": None}
    assert "no end" in compared(record(timeline=[moment], outcome=None))[1]


def test_without_a_prediction_nothing_is_compared() -> None:
    assert compared(record(timeline=[])) == []


def test_a_peers_words_do_not_steer_the_terminal() -> None:
    text = prediction_text({"prediction": None, "no_prediction": "b says \x1b[31mred"})
    assert text == "No prediction. b says ?[31mred"


def test_check_measure_asks_for_it_and_tells_it(run: Run, server: ControlServer) -> None:
    server.answer("check", answer(prediction=PREDICTION, no_prediction=""))
    text = run("relocctl", "check", "--measure", "web", "hostb").stdout
    assert "can move to hostb.\n\nLive: about 4.2 s.\n" in text
    assert server.requests[-1]["measure"] is True
    server.answer("check", answer(prediction=None, no_prediction="The link is down."))
    assert "No prediction. The link is down." in run("relocctl", "check", "--measure", "web", "hostb").stdout


def test_migrate_measure_predicts_first(run: Run, server: ControlServer) -> None:
    server.domains = [domain("web", 1)]
    server.answer("check", answer(prediction=PREDICTION, no_prediction=""))
    server.answer("migrate", {"event": "result", **outcome()})
    done = run("relocctl", "migrate", "--live", "--measure", "web", "hostb")
    assert done.returncode == 0
    assert "Live: about 4.2 s." in done.stderr
    first = run("relocctl", "migrate", "--measure", "--json", "web", "hostb").stdout.splitlines()[0]
    assert json.loads(first)["prediction"] == PREDICTION
    assert [request["verb"] for request in server.requests] == ["check", "migrate"] * 2


def test_what_cannot_be_predicted_is_moved_nevertheless(run: Run, server: ControlServer) -> None:
    server.answer(
        "check", {"event": "error", "code": "bad-state", "message": "Not now.", "hint": "", "exit_code": 2}
    )
    server.answer("migrate", {"event": "result", **outcome()})
    done = run("relocctl", "migrate", "--measure", "web", "hostb")
    assert done.returncode == 0
    assert "No prediction. Not now." in done.stderr
