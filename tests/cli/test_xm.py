"""xm as a program: its syntax, its output to the letter and its exit codes."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path
from typing import Any

import pytest

from relocd.cli import relocctl, xm, xm_format, xm_help
from relocd.cli.client import Client
from relocd.cli.replies import Domain
from tests.cli.conftest import Run
from tests.cli.control_server import ControlServer, domain, outcome, progress, unknown_domain

GOLDEN = Path(__file__).parent / "golden"


@pytest.fixture(autouse=True)
def _domains(server: ControlServer) -> None:
    server.domains = [
        domain("web", 7, start_time=1700000000.0),
        domain("db", 3, "paused"),
        domain("mail.example.org", 12, "outgoing"),
        domain("old", 4, "shutdown"),
        domain("bad", 5, "crashed"),
        domain("arriving", 13, "incoming"),
    ]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Run a command's entry point in this process; test_xm_clients.py runs the installed one."""
    mains = {"xm": xm.main, "relocctl": relocctl.main}

    def command(name: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        monkeypatch.setattr("sys.argv", [name, *arguments])
        with pytest.raises(SystemExit) as ended:
            mains[name]()
        captured = capsys.readouterr()
        return subprocess.CompletedProcess([name], int(ended.value.code or 0), captured.out, captured.err)

    return command


def golden(name: str) -> str:
    return (GOLDEN / name).read_text()


def out(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """Run xm in this process and return what it printed; it must succeed."""
    assert xm.run(arguments) == 0
    return capsys.readouterr().out


def test_list_is_xms_to_the_letter(server: ControlServer) -> None:
    guests = xm.visible(Client(str(server.path)))
    host = Domain("Domain-0", 0, "", "running", 3584, 2, 4711.04, None, {})
    assert xm_format.brief([host, *guests]) + "\n" == golden("xm-list.txt")


def test_list_shows_the_host_first_and_never_what_is_still_arriving(
    capsys: pytest.CaptureFixture[str],
) -> None:
    rows = [line.split()[:2] for line in out(capsys, "list").splitlines()]
    assert rows[:2] == [["Name", "ID"], ["Domain-0", "0"]]
    assert rows[2:] == [["bad", "5"], ["db", "3"], ["mail.example.org", "12"], ["old", "4"], ["web", "7"]]


def test_the_hosts_row_has_what_no_guest_has(
    capsys: pytest.CaptureFixture[str], server: ControlServer
) -> None:
    server.domains = [domain("web", 7)]
    row = out(capsys, "list").splitlines()[1].split()
    assert row[2] == str(16384 - 8192 - 7 * 128)
    assert int(row[3]) > 0
    assert row[4] == "r-----"


def test_a_host_whose_guests_have_not_touched_their_memory_has_no_negative_row(
    capsys: pytest.CaptureFixture[str], server: ControlServer
) -> None:
    server.domains = [domain("web", 7, memory_mib=12000)]
    assert out(capsys, "list", "0").splitlines()[1].split()[2] == "0"


def test_list_of_names_keeps_their_order(capsys: pytest.CaptureFixture[str]) -> None:
    rows = out(capsys, "list", "web", "3", "Domain-0").splitlines()[1:]
    assert [row.split()[0] for row in rows] == ["web", "db", "Domain-0"]


@pytest.mark.parametrize(
    ("state", "names"),
    [
        ("all", ["Domain-0", "bad", "db", "mail.example.org", "old", "web"]),
        ("running", ["Domain-0", "web"]),
        ("paused", ["db", "mail.example.org"]),
        ("halted", ["old"]),
        ("crashed", ["bad"]),
        ("suspended", []),
    ],
)
def test_list_by_state(capsys: pytest.CaptureFixture[str], state: str, names: list[str]) -> None:
    assert [row.split()[0] for row in out(capsys, "list", f"--state={state}").splitlines()[1:]] == names


def test_list_long_is_xms_to_the_letter(capsys: pytest.CaptureFixture[str]) -> None:
    assert out(capsys, "list", "--long", "web") == golden("xm-list-long.txt")
    host = out(capsys, "list", "-l", "Domain-0").splitlines()
    for line in (
        "(domain",
        "    (domid 0)",
        "    (name Domain-0)",
        "    (status 2)",
        "    (state r-----)",
        ")",
    ):
        assert line in host


def test_an_odd_state_of_a_newer_relocd_is_unknown_and_not_running(
    capsys: pytest.CaptureFixture[str], server: ControlServer
) -> None:
    server.domains = [domain("web", 7, "dreaming")]
    assert "(status 6)" in out(capsys, "list", "--long", "web")
    assert out(capsys, "list", "web").splitlines()[1].split()[4] == "------"


def test_info_has_xms_layout(capsys: pytest.CaptureFixture[str]) -> None:
    lines = out(capsys, "info").splitlines()
    assert [line[:25] for line in lines] == golden("xm-info-keys.txt").splitlines()
    facts = {key.strip(): value for key, _, value in (line.partition(": ") for line in lines)}
    assert facts["total_memory"] == "16384"
    assert facts["free_memory"] == "8192"
    for key in ("nr_cpus", "nr_nodes", "cores_per_socket", "threads_per_core", "xen_major", "xen_minor"):
        assert int(facts[key]) > 0
    assert all(re.fullmatch(r"([A-z_]+)[^:]*: (.*)", line) for line in lines)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, " 0:00:00"),
        (3661, " 1:01:01"),
        (86400 + 59, "1 day,  0:00:59"),
        (98 * 86400 + 83264, "98 days, 23:07:44"),
    ],
)
def test_uptime_in_xms_words(monkeypatch: pytest.MonkeyPatch, seconds: int, text: str) -> None:
    monkeypatch.setattr("time.time", lambda: 1700000000.0 + seconds)
    web = Domain.of(domain("web", 7, start_time=1700000000.0))
    assert xm_format.uptimes([web]) == f"{'Name':33} {'ID':>4} Uptime \n{'web':32} {'7':>5} {text}"
    assert xm_format.short_uptimes([web], "12:34:56") == f" 12:34:56 up {text}, web (7)"


def test_uptime_of_a_domain_that_does_not_tell_it(capsys: pytest.CaptureFixture[str]) -> None:
    assert out(capsys, "uptime", "db").splitlines()[1].split() == ["db", "3", "unknown"]
    host = out(capsys, "uptime", "0").splitlines()[1]
    assert re.fullmatch(r"Domain-0 +0 (\d+ days?, )?[ \d]\d:\d\d:\d\d", host)
    assert re.fullmatch(r" \d\d:\d\d:\d\d up .*, web \(7\)\n", out(capsys, "uptime", "-s", "web"))


def test_names_and_numbers(capsys: pytest.CaptureFixture[str]) -> None:
    assert out(capsys, "domid", "web") == "7\n"
    assert out(capsys, "domid", "Domain-0") == "0\n"
    assert out(capsys, "domname", "7") == "web\n"
    assert out(capsys, "domname", "0") == "Domain-0\n"


@pytest.mark.parametrize("verb", ["pause", "unpause", "destroy", "shutdown", "reboot"])
def test_the_simple_verbs_are_silent(
    capsys: pytest.CaptureFixture[str], server: ControlServer, verb: str
) -> None:
    assert out(capsys, verb, "web") == ""
    assert server.requests == [{"verb": verb, "domain": "web"}]


@pytest.mark.parametrize("verb", ["pause", "unpause", "destroy", "shutdown", "reboot", "console"])
@pytest.mark.parametrize("host", ["Domain-0", "0"])
def test_the_host_itself_is_left_alone(run: Run, server: ControlServer, verb: str, host: str) -> None:
    done = run("xm", verb, host)
    assert (done.returncode, done.stderr) == (1, f"Error: Cannot {verb} privileged domain {host}\n")
    assert server.requests == []


def test_shutdown_of_all_waits_and_says_who_has_ended(
    capsys: pytest.CaptureFixture[str], server: ControlServer
) -> None:
    server.domains = [domain("web", 7), domain("db", 3)]

    def shutdown(request: dict[str, Any]) -> list[dict[str, Any]]:
        asked = next(d for d in server.domains if d["uuid"] == request["domain"])
        server.domains.remove(asked)
        return [{"event": "result", "domain": asked}]

    server.answers["shutdown"] = shutdown
    assert (
        out(capsys, "shutdown", "-a", "-w")
        == "Domain db terminated\nDomain web terminated\nAll domains terminated\n"
    )


def test_shutdown_dash_r_is_a_reboot(capsys: pytest.CaptureFixture[str], server: ControlServer) -> None:
    out(capsys, "shutdown", "-R", "web")
    out(capsys, "shutdown", "-H", "web")
    assert server.verbs() == ["reboot", "shutdown"]


@pytest.mark.parametrize(
    ("arguments", "request_"),
    [
        (["--live", "web", "hostb"], {"live": True}),
        (["web", "hostb", "-l"], {"live": True}),
        (["web", "hostb"], {"live": False}),
        (["-p", "8012", "web", "hostb"], {"live": False, "port": 8012}),
        (["-l", "--port=8012", "web", "hostb"], {"live": True, "port": 8012}),
        (["-p=8012", "web", "hostb"], {"live": False, "port": 8012}),
        (["-p", "0", "web", "hostb"], {"live": False}),
    ],
)
def test_migrate_is_silent_when_it_succeeds(
    run: Run, server: ControlServer, arguments: list[str], request_: dict[str, Any]
) -> None:
    server.answer("migrate", progress("memory", 1, 50), outcome())
    done = run("xm", "migrate", *arguments)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert server.requests == [{"verb": "migrate", "domain": "web", "host": "hostb", **request_}]


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["-r", "100", "web", "hostb"], "option -r not recognized"),
        (["-s", "web", "hostb"], "-s (--ssl) is not supported: "),
        (["--node=1", "web", "hostb"], "-n (--node) is not supported: "),
        (["-c", "web", "hostb"], "-c (--change_home_server) is not supported: "),
        (["web"], "Invalid number of arguments"),
        (["web", "a", "b"], "Invalid number of arguments"),
        (["-p", "x", "web", "hostb"], "Invalid port number: x"),
        (["-p", "65536", "web", "hostb"], "Invalid port number: 65536"),
    ],
)
def test_migrate_explains_wrong_usage(
    run: Run, server: ControlServer, arguments: list[str], text: str
) -> None:
    done = run("xm", "migrate", *arguments)
    assert done.returncode == 1
    assert done.stderr.startswith(f"Error: {text}")
    assert done.stdout.startswith(
        "Usage: xm migrate <Domain> <Host>\n\nMigrate a domain to another machine.\n"
    )
    assert server.requests == []


@pytest.mark.parametrize(
    ("answer", "status", "first"),
    [
        (unknown_domain("web"), 3, "Error: Domain 'web' does not exist."),
        (outcome("refused", error="hostb refused: memory", exit_code=7), 1, "Error: hostb refused: memory"),
        (
            outcome("failed", error="hostb:8002: Connection was refused by other side.", exit_code=6),
            1,
            "Error: Connection refused: hostb:8002: Connection was refused by other side.",
        ),
        (
            outcome("failed", error="can't connect: Connection refused", exit_code=6),
            1,
            "Error: can't connect: Connection refused",
        ),
        (outcome("unknown", error="cut off", exit_code=12), 1, "Error: cut off"),
    ],
)
def test_migrate_failures_have_xms_codes_and_words(
    run: Run, server: ControlServer, answer: dict[str, Any], status: int, first: str
) -> None:
    server.answer("migrate", answer)
    done = run("xm", "migrate", "web", "hostb")
    assert (done.returncode, done.stdout) == (status, "")
    assert done.stderr.splitlines()[0] == first


def created(server: ControlServer) -> None:
    server.answer("create", {"event": "result", "domain": domain("web", 7), "warnings": []})


@pytest.fixture
def config(tmp_path: Path) -> Path:
    file = tmp_path / "cfg" / "web"
    file.parent.mkdir()
    file.write_text("name = 'web'\nmemory = 128\nkernel = '/boot/vmlinuz'\n")
    return file


def test_create_says_what_it_does(run: Run, server: ControlServer, config: Path) -> None:
    created(server)
    done = run("xm", "create", f"--path=/nonexistent:{config.parent}", "web", "on_crash=destroy", "-p")
    assert done.stdout == f'Using config file "{config}".\nStarted domain web (id=7)\n'
    assert server.requests[0]["set"] == {"on_crash": "destroy"}
    assert server.requests[0]["paused"] is True
    assert server.requests[0]["source"] == str(config)


@pytest.mark.parametrize("option", ["-f", "--defconfig", "-F", "--config"])
def test_create_can_be_quiet(run: Run, server: ControlServer, config: Path, option: str) -> None:
    created(server)
    done = run("xm", "create", "-q", option, str(config))
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_create_without_its_file(run: Run, server: ControlServer) -> None:
    done = run("xm", "create", "nowhere.cfg")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.splitlines()[0] == "Error: Unable to open config file: nowhere.cfg"
    assert server.requests == []


def test_a_dry_run_starts_nothing_and_prints_the_domain(
    run: Run, server: ControlServer, config: Path
) -> None:
    done = run("xm", "create", "--quiet", "--dryrun", "--defconfig", str(config), "name=mail")
    assert (done.returncode, done.stderr) == (0, "")
    assert "    (name mail)" in done.stdout.splitlines()
    assert server.requests == []


@pytest.mark.parametrize(
    ("word", "name"),
    [
        ("mi", "migrate"),
        ("li", "list"),
        ("cr", "create"),
        ("un", "unpause"),
        ("upt", "uptime"),
        ("des", "destroy"),
    ],
)
def test_prefixes_that_only_one_subcommand_has(word: str, name: str) -> None:
    assert xm_help.lookup(word) == name


@pytest.mark.parametrize("word", ["m", "sh", "re", "do", "dominfo", "zz"])
def test_other_words_are_no_subcommand(run: Run, word: str) -> None:
    assert xm_help.lookup(word) is None
    done = run("xm", word)
    assert done.returncode == 1
    assert done.stderr == f"Error: Subcommand {word} not found!\n"
    assert done.stdout.startswith("Usage: xm <subcommand> [args]")


@pytest.mark.parametrize("word", sorted(xm_help.UNSUPPORTED))
def test_what_is_missing_says_why(word: str) -> None:
    with pytest.raises(Exception, match=f"^'xm {word}' is not supported: "):
        xm.run([word, "web"])


def test_help(run: Run) -> None:
    for arguments, status in ((["help"], 0), (["--help"], 0), ([], 1)):
        done = run("xm", *arguments)
        assert done.returncode == status
        assert done.stdout == xm_help.overview() + "\n"
    for name in xm_help.SUBCOMMANDS:
        assert f"\n {name:20} " in xm_help.overview()


@pytest.mark.parametrize("name", sorted(xm_help.SUBCOMMANDS))
def test_help_of_a_subcommand_ends_with_1_as_ever(capsys: pytest.CaptureFixture[str], name: str) -> None:
    assert xm.run([name, "web", "-h"]) == 1
    assert capsys.readouterr().out.startswith(f"Usage: xm {name}")


def test_every_subcommand_that_is_explained_can_be_run() -> None:
    assert {*xm.RUN} == {*xm_help.SUBCOMMANDS}
    assert not {*xm.RUN} & {*xm_help.UNSUPPORTED}


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["pause"], "'xm pause' requires 1 argument."),
        (["domid"], "'xm domid' requires 1 argument."),
        (["list", "--colour"], "option --colour not recognized"),
        (["list", "--state=odd"], "State must be one of"),
        (
            ["list", "--state=running", "web"],
            "You may specify either a state or a particular VM, but not both",
        ),
        (["shutdown"], "No domain parameter given"),
        (["shutdown", "web", "db"], "No multiple domain parameters allowed"),
        (["shutdown", "-H", "-R", "web"], "Can't specify halt and reboot"),
        (["reboot", "-w", "web"], "-w is not supported for a reboot"),
        (["console", "-n", "1", "web"], "-n (--num) is not supported"),
        (["info", "-c"], "-n and -c are not supported"),
    ],
)
def test_wrong_usage_is_1_with_the_usage(
    capsys: pytest.CaptureFixture[str], arguments: list[str], text: str
) -> None:
    assert xm.run(arguments) == 1
    captured = capsys.readouterr()
    assert captured.err.startswith(f"Error: {text}")
    assert captured.out.startswith(f"Usage: xm {arguments[0]}")


@pytest.mark.parametrize(
    "arguments", [("list", "x"), ("domid", "x"), ("migrate", "x", "hostb"), ("destroy", "x")]
)
def test_an_unknown_domain_is_3_in_the_first_line(
    run: Run, server: ControlServer, arguments: tuple[str, ...]
) -> None:
    server.answer("migrate", unknown_domain("x"))
    done = run("xm", *arguments)
    assert (done.returncode, done.stdout) == (3, "")
    assert done.stderr.splitlines()[0] == "Error: Domain 'x' does not exist."


def test_a_domain_that_is_arriving_does_not_exist_yet(run: Run) -> None:
    assert run("xm", "list", "arriving").returncode == 3
    assert run("relocctl", "list", "arriving").returncode == 0


def test_console_can_be_quiet_about_a_missing_domain(run: Run, server: ControlServer) -> None:
    server.answer("console", unknown_domain("x"))
    done = run("xm", "console", "-q", "x")
    assert (done.returncode, done.stdout, done.stderr) == (1, "", "")
    assert run("xm", "console", "x").returncode == 3


def test_no_daemon_is_1_in_xms_words(run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("RELOCD_SOCKET", str(tmp_path / "none"))
    done = run("xm", "list")
    assert done.returncode == 1
    assert done.stderr.startswith(
        "Error: Unable to connect to relocd: No such file or directory. Is relocd running?"
    )
