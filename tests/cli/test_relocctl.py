"""relocctl as a program: what it asks relocd, what it prints and with which code it ends."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from relocd.cli import exitcodes, relocctl
from tests.cli.conftest import Run
from tests.cli.control_server import INFO, ControlServer, domain, outcome, progress, unknown_domain

VERBS = (
    "cancel",
    "check",
    "console",
    "create",
    "destroy",
    "firewall",
    "history",
    "info",
    "list",
    "migrate",
    "pause",
    "peers",
    "reboot",
    "resolve",
    "shutdown",
    "status",
    "tls",
    "unpause",
)


@pytest.fixture(autouse=True)
def _two_domains(server: ControlServer) -> None:
    server.domains = [domain("web", 1), domain("db", 2, "paused")]


def invoke(*arguments: str) -> str:
    """Run relocctl in this process and return what it printed; it must succeed."""
    result = CliRunner().invoke(relocctl.cli, arguments, standalone_mode=False, catch_exceptions=False)
    assert not result.return_value
    return result.output


def test_help_names_every_verb_the_examples_and_the_exit_codes() -> None:
    text = invoke("--help")
    assert {*VERBS} == {*relocctl.cli.commands}
    for verb in VERBS:
        assert f"\n  {verb} " in text
    assert "relocctl migrate --live web hostb" in text
    for entry in exitcodes.EXIT_CODES:
        assert f"{entry.status}  {entry.meaning.replace('`', '')}\n" in text


@pytest.mark.parametrize("verb", ["peers test", *(verb for verb in VERBS if verb != "peers")])
def test_every_verb_explains_itself_and_speaks_json(verb: str) -> None:
    text = invoke(*verb.split(), "--help")
    assert " [OPTIONS]" in text.splitlines()[0]
    assert "--json" in text
    assert len(text.splitlines()) > 6


def test_list_as_a_table_and_as_an_array(run: Run, server: ControlServer) -> None:
    table = run("relocctl", "list").stdout.splitlines()
    assert [line.split()[:3] for line in table] == [
        ["NAME", "ID", "STATE"],
        ["web", "1", "running"],
        ["db", "2", "paused"],
    ]
    shown = json.loads(run("relocctl", "list", "--json").stdout)
    assert shown == server.domains
    assert json.loads(run("relocctl", "list", "db", "--json").stdout) == [server.domains[1]]


def test_an_unknown_domain_ends_with_3(run: Run) -> None:
    done = run("relocctl", "list", "mail")
    assert (done.returncode, done.stdout) == (3, "")
    assert done.stderr.splitlines()[0] == "Error: Domain 'mail' does not exist."


def test_json_errors_are_objects_on_stdout(run: Run) -> None:
    done = run("relocctl", "pause", "mail", "--json")
    assert done.returncode == 3
    assert json.loads(done.stdout) == {
        "error": "Domain 'mail' does not exist.",
        "code": "unknown-domain",
        "hint": "'relocctl list' shows the domains of this host.",
        "exit_code": 3,
    }
    assert done.stderr.startswith("Error: ")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("migrate", "web"), "Error: Missing argument 'HOST'."),
        (("list", "--colour"), "Error: No such option '--colour'."),
        (("fly",), "Error: No such command 'fly'."),
        (("migrate", "web", "hostb", "--port", "0"), "Error: Invalid value for '--port' / '-p'"),
        (("create", "a.cfg", "b.cfg"), "Error: More than one domain file was named: a.cfg, b.cfg."),
        (("create", "memory=5"), "Error: No domain file was named."),
        (("create", "--console", "--json", "-"), "Error: --console cannot go with --json."),
    ],
)
def test_wrong_usage_ends_with_2_and_a_next_step(run: Run, arguments: tuple[str, ...], message: str) -> None:
    done = run("relocctl", *arguments)
    assert done.returncode == 2
    first, second = done.stderr.splitlines()
    assert first.startswith(message)
    assert second


def test_without_a_verb_it_explains_itself(run: Run) -> None:
    done = run("relocctl")
    assert done.returncode == 2
    assert "Usage: relocctl" in done.stderr


def test_the_socket_option_wins_and_a_missing_daemon_is_told(run: Run, tmp_path: Path) -> None:
    done = run("relocctl", "--socket", str(tmp_path / "none.sock"), "list")
    assert done.returncode == 1
    first, second = done.stderr.splitlines()
    assert first == "Error: Unable to connect to relocd: No such file or directory. Is relocd running?"
    assert "systemctl start relocd" in second


def test_create_from_a_file_with_settings(run: Run, server: ControlServer, tmp_path: Path) -> None:
    server.answer(
        "create", {"event": "result", "domain": domain("web", 7), "warnings": ["'vnc' is ignored."]}
    )
    file = tmp_path / "web.cfg"
    file.write_text("name = 'web'\n")
    done = run("relocctl", "create", str(file), "memory=512", "--paused")
    assert done.returncode == 0
    assert done.stdout == "Started domain web (id=7)\n"
    assert done.stderr == "Warning: 'vnc' is ignored.\n"
    assert server.requests == [
        {
            "verb": "create",
            "config": "name = 'web'\n",
            "source": str(file),
            "set": {"memory": "512"},
            "paused": True,
        }
    ]


def test_create_from_stdin(run: Run, server: ControlServer) -> None:
    server.answer("create", {"event": "result", "domain": domain("web", 7), "warnings": []})
    done = run("relocctl", "create", "-", "--json", stdin="name = 'web'\n")
    assert json.loads(done.stdout)["domain"] == domain("web", 7)
    assert (server.requests[0]["config"], server.requests[0]["source"]) == ("name = 'web'\n", "<stdin>")


def test_info_for_people_and_programs(server: ControlServer) -> None:
    assert "relocd version" in invoke("info")
    assert json.loads(invoke("info", "--json")) == {"event": "result", **INFO}


@pytest.mark.parametrize(
    ("verb", "text"),
    [
        ("pause", "Domain 'web' is paused."),
        ("unpause", "Domain 'web' goes on."),
        ("shutdown", "Asked the guest of 'web' to power off."),
        ("reboot", "Asked the guest of 'web' to restart."),
        ("destroy", "Domain 'web' is destroyed."),
    ],
)
def test_the_simple_verbs(server: ControlServer, verb: str, text: str) -> None:
    assert invoke(verb, "1") == text + "\n"
    assert json.loads(invoke(verb, "1", "--json")) == server.domains[0]
    assert server.requests[0] == {"verb": verb, "domain": "1"}


def test_shutdown_can_wait(server: ControlServer) -> None:
    def shutdown(request: dict[str, Any]) -> list[dict[str, Any]]:
        asked = server.domains.pop(0)
        assert asked["name"] == request["domain"]
        return [{"event": "result", "domain": asked}]

    server.answers["shutdown"] = shutdown
    assert invoke("shutdown", "--wait", "web") == "Domain 'web' has powered off.\n"
    assert server.verbs() == ["shutdown", "list"]


def test_shutdown_gives_up_after_its_timeout(run: Run) -> None:
    done = run("relocctl", "shutdown", "--wait", "--timeout", "0", "web")
    assert done.returncode == 1
    assert done.stderr.splitlines()[0] == "Error: Still running after 0 s: 'web'."


CHECK = {"check": "memory", "verdict": "pass", "text": "8192 MiB free", "remedy": ""}
FAILED_CHECK = {"check": "bridges", "verdict": "fail", "text": "no bridge xenbr0", "remedy": "Make it."}


def test_check_succeeds(server: ControlServer) -> None:
    server.answer("check", {"event": "result", "passed": True, "checks": [CHECK]})
    assert invoke("check", "web", "hostb", "-p", "8012").endswith("Domain 'web' can move to hostb.\n")
    assert server.requests == [{"verb": "check", "domain": "web", "host": "hostb", "port": 8012}]


def test_a_failed_check_ends_with_7_and_its_remedy(run: Run, server: ControlServer) -> None:
    server.answer("check", {"event": "result", "passed": False, "checks": [CHECK, FAILED_CHECK]})
    done = run("relocctl", "check", "web", "hostb")
    assert done.returncode == 7
    assert done.stdout == (
        "pass  memory   8192 MiB free\n"
        "fail  bridges  no bridge xenbr0\n"
        "               -> Make it.\n"
        "Domain 'web' cannot move to hostb: 1 of 2 checks failed.\n"
    )
    done = run("relocctl", "check", "web", "hostb", "--json")
    assert (done.returncode, json.loads(done.stdout)["checks"]) == (7, [CHECK, FAILED_CHECK])


def test_migrate_prints_steps_to_stderr_and_a_summary_to_stdout(run: Run, server: ControlServer) -> None:
    server.answer("migrate", progress("memory", 1, 50), progress("memory", 1, 60), outcome())
    done = run("relocctl", "migrate", "--live", "web", "hostb")
    assert done.returncode == 0
    assert done.stdout.startswith("Domain 'web' is on hostb now: live, 3 rounds, 10.2 s, downtime 41 ms")
    assert done.stderr == "web to hostb: memory, round 1 (50%, 110.0 MiB/s, 256.0 MiB left, ETA 5.0 s)\n"
    assert server.requests == [{"verb": "migrate", "domain": "web", "host": "hostb", "live": True}]


@pytest.mark.parametrize(
    ("rate", "bytes_s"),
    [("50M", 50 << 20), ("1.5g", 3 << 29), ("100000", 100_000), ("64K", 64 << 10), ("0", 0)],
)
def test_migrate_passes_on_what_it_may_take(run: Run, server: ControlServer, rate: str, bytes_s: int) -> None:
    server.answer("migrate", outcome())
    run("relocctl", "migrate", "web", "hostb", "--max-bandwidth", rate, "--max-downtime=50", "--timeout=2.5")
    (request,) = server.requests
    assert request["max_bandwidth_bytes_s"] == bytes_s
    assert request["max_downtime_ms"] == 50
    assert request["max_duration_s"] == 2.5


@pytest.mark.parametrize("rate", ["", "M", "50MB", "-1", "1e6", "50 M", "nan", "9" * 13])
def test_migrate_refuses_what_is_no_rate(run: Run, server: ControlServer, rate: str) -> None:
    done = run("relocctl", "migrate", "web", "hostb", "--max-bandwidth", rate)
    assert (done.returncode, server.requests) == (2, [])
    assert "is no rate: write 50M" in done.stderr


def test_migrate_is_offline_unless_live_is_asked_for(run: Run, server: ControlServer) -> None:
    server.answer("migrate", outcome(live=False))
    run("relocctl", "migrate", "web", "hostb", "--port", "8012")
    assert server.requests == [
        {"verb": "migrate", "domain": "web", "host": "hostb", "port": 8012, "live": False}
    ]


REFUSED = outcome(
    "refused",
    code="refused",
    message="hostb refused: not enough memory",
    error="hostb refused: not enough memory",
    reasons=[{"code": "memory", "text": "not enough memory"}],
    hint="Free 512 MiB on hostb.",
    exit_code=7,
)
OUTCOME_FIELDS = {
    "outcome",
    "relocation",
    "live",
    "rounds",
    "duration_s",
    "downtime_ms",
    "blackout_ms",
    "channels",
    "bytes_sent",
    "pages",
    "zero_pages",
    "saved_zero_bytes",
    "saved_compression_bytes",
    "dense_bytes",
    "level_bytes",
    "error",
}


def test_a_refused_relocation_is_told_with_the_next_step(run: Run, server: ControlServer) -> None:
    server.answer("migrate", REFUSED)
    done = run("relocctl", "migrate", "web", "hostb")
    assert (done.returncode, done.stdout) == (7, "")
    assert done.stderr == "Error: hostb refused: not enough memory\nFree 512 MiB on hostb.\n"


def test_migrate_json_is_progress_then_the_outcome(run: Run, server: ControlServer) -> None:
    server.answer("migrate", progress("memory", 1, 50), outcome())
    lines = [
        json.loads(line) for line in run("relocctl", "migrate", "web", "hostb", "--json").stdout.splitlines()
    ]
    assert lines[0] == progress("memory", 1, 50)
    assert lines[1] == outcome() | {"exit_code": 0}


@pytest.mark.parametrize(
    ("steps", "status", "kind"),
    [
        ([REFUSED], 7, "refused"),
        ([unknown_domain("web")], 3, "refused"),
        ([progress("memory", 1, 50)], 12, "unknown"),
    ],
)
def test_migrate_json_ends_with_an_outcome_also_when_it_failed(
    run: Run, server: ControlServer, steps: list[Any], status: int, kind: str
) -> None:
    server.answer("migrate", *steps)
    done = run("relocctl", "migrate", "--json", "web", "hostb")
    last = json.loads(done.stdout.splitlines()[-1])
    assert (done.returncode, last["exit_code"], last["outcome"]) == (status, status, kind)
    assert {*last} >= OUTCOME_FIELDS
    assert last["error"]
    assert done.stderr.startswith("Error: ")


def test_migrate_json_without_a_daemon_ends_with_an_outcome(run: Run, tmp_path: Path) -> None:
    done = run("relocctl", "--socket", str(tmp_path / "none"), "migrate", "web", "hostb", "--json")
    last = json.loads(done.stdout)
    assert (done.returncode, last["outcome"]) == (1, "failed")
    assert {*last} >= OUTCOME_FIELDS


def test_console_json_names_the_socket_and_does_not_attach(server: ControlServer) -> None:
    server.answer(
        "console", {"event": "result", "path": "/run/relocd/x.sock", "log": "/var/log/relocd/x.log"}
    )
    assert json.loads(invoke("console", "web", "--json"))["path"] == "/run/relocd/x.sock"
