"""What relocctl and xm share, above all how a relocation's end is told."""

from __future__ import annotations

import threading

import pytest

from relocd.cli import commands
from relocd.cli.client import Client, DaemonError
from relocd.cli.domainfile import DomainFile
from relocd.cli.replies import Outcome
from relocd.errors import ProtocolError
from tests.cli.control_server import ControlServer, domain, outcome, progress, unknown_domain


@pytest.fixture
def client(server: ControlServer) -> Client:
    server.domains = [domain("web", 1), domain("db", 2, "paused")]
    return Client(str(server.path))


def test_domains_are_found_by_name_id_and_uuid(client: Client) -> None:
    for reference in ("db", "2", "00000000-0000-4000-8000-000000000002"):
        assert commands.find(client, reference).name == "db"
    with pytest.raises(DaemonError) as caught:
        commands.find(client, "mail")
    assert caught.value.status == 3


def test_create_sends_the_text_and_the_settings(server: ControlServer, client: Client) -> None:
    server.answer(
        "create", {"event": "result", "domain": domain("web", 7), "warnings": ["'vnc' is ignored."]}
    )
    created = commands.create(
        client, DomainFile("name='web'", "/etc/web.cfg"), {"memory": "512"}, paused=True
    )
    assert (created.domain.id, created.warnings) == (7, ("'vnc' is ignored.",))
    assert server.requests == [
        {
            "verb": "create",
            "config": "name='web'",
            "source": "/etc/web.cfg",
            "set": {"memory": "512"},
            "paused": True,
        }
    ]


@pytest.mark.parametrize("verb", ["pause", "unpause", "shutdown", "reboot", "destroy"])
def test_the_simple_verbs(server: ControlServer, client: Client, verb: str) -> None:
    act = {
        "pause": commands.pause,
        "unpause": commands.unpause,
        "shutdown": commands.shutdown,
        "reboot": commands.reboot,
        "destroy": commands.destroy,
    }[verb]
    assert act(client, "web").name == "web"
    assert server.requests == [{"verb": verb, "domain": "web"}]


def test_a_console_without_a_path_is_no_answer(server: ControlServer, client: Client) -> None:
    server.answer("console", {"event": "result"})
    with pytest.raises(ProtocolError, match="'path' is missing"):
        commands.console(client, "web")


def test_waiting_ends_when_each_domain_is_gone_off_or_new(
    server: ControlServer, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    waiting = [commands.find(client, name) for name in ("web", "db")]
    states = iter([[domain("web", 1, "shutdown"), domain("db", 2)], [domain("db", 3)]])

    def next_state(_seconds: float) -> None:
        server.domains = next(states)

    monkeypatch.setattr("time.sleep", next_state)
    ended: list[str] = []
    commands.wait_until_ended(client, waiting, lambda d: ended.append(d.name))
    assert ended == ["web", "db"]


def test_waiting_gives_up_in_words(client: Client) -> None:
    waiting = [commands.find(client, "web")]
    with pytest.raises(commands.StillRunningError, match=r"^Still running after 0 s: 'web'\.$") as caught:
        commands.wait_until_ended(client, waiting, lambda _: None, timeout_s=0)
    assert "destroy" in caught.value.hint


def test_a_completed_relocation(server: ControlServer, client: Client) -> None:
    server.answer("migrate", progress("memory", 1, 50), outcome())
    seen: list[object] = []
    ended = commands.migrate(client, "web", "hostb", live=True, port=8012, on_progress=seen.append)
    assert ended.completed
    assert seen == [progress("memory", 1, 50)]
    assert server.requests == [
        {"verb": "migrate", "domain": "web", "host": "hostb", "port": 8012, "live": True}
    ]


@pytest.mark.parametrize(
    ("step", "kind", "status", "code"),
    [
        (outcome("failed", code="unreachable", message="gone", exit_code=6), "failed", 6, "unreachable"),
        (outcome("unknown", code="unknown", message="cut off", exit_code=12), "unknown", 12, "unknown"),
        (unknown_domain("web"), "refused", 3, "unknown-domain"),
        (b"nonsense\n", "failed", 5, "protocol"),
        (b"", "unknown", 12, "unknown"),
    ],
)
def test_every_other_end_is_told_with_its_code(
    server: ControlServer, client: Client, step: bytes, kind: str, status: int, code: str
) -> None:
    server.answer("migrate", step)
    ended = commands.migrate(client, "web", "hostb", live=True)
    assert (ended.raw["outcome"], ended.status, ended.code) == (kind, status, code)
    assert ended.error
    assert ended.raw["exit_code"] == status


def test_a_daemon_that_dies_leaves_the_outcome_unknown_with_the_relocations_id(
    server: ControlServer, client: Client
) -> None:
    server.answer("migrate", progress("memory", 1, 50))
    ended = commands.migrate(client, "web", "hostb", live=True)
    assert (ended.raw["outcome"], ended.raw["relocation"]) == ("unknown", "r1")
    assert "hostb" in ended.hint


def test_no_daemon_means_nothing_moved(tmp_path: object) -> None:
    ended = commands.migrate(Client(f"{tmp_path}/none.sock"), "web", "hostb", live=True)
    assert (ended.raw["outcome"], ended.status, ended.code) == ("failed", 1, "no-daemon")


def interrupted(server: ControlServer, client: Client) -> Outcome:
    """A relocation that is interrupted from the keyboard after its first progress."""
    left = threading.Event()
    server.answer("migrate", progress("memory", 1, 50), left, outcome())

    def interrupt(_event: object) -> None:
        raise KeyboardInterrupt

    ended = commands.migrate(client, "web", "hostb", live=True, on_progress=interrupt)
    left.set()
    return ended


def test_an_interrupt_cancels_the_relocation(server: ControlServer, client: Client) -> None:
    server.answer("cancel", outcome("failed", event="result", error="cancelled by an operator"))
    ended = interrupted(server, client)
    assert server.requests[-1] == {"verb": "cancel", "relocation": "r1"}
    assert (ended.status, ended.raw["outcome"], ended.raw["relocation"]) == (130, "failed", "r1")
    assert ended.error == "cancelled by an operator"


def test_an_interrupt_after_the_decision_says_that_the_relocation_goes_on(
    server: ControlServer, client: Client
) -> None:
    decided = {"event": "error", "code": "bad-state", "message": "It is decided.", "hint": "", "exit_code": 2}
    server.answer("cancel", decided)
    ended = interrupted(server, client)
    assert (ended.status, ended.raw["outcome"], ended.raw["relocation"]) == (130, "unknown", "r1")
    assert "goes on: It is decided." in ended.error
    assert "relocctl list" in ended.hint


def test_cancel_status_and_history_ask_for_just_that(server: ControlServer, client: Client) -> None:
    row = {"relocation": "r1", "role": "source", "domain": "web", "peer": "hostb", "state": "moving"}
    server.answer("cancel", outcome("failed", event="result"))
    server.answer("status", {"event": "result", "relocations": [row]})
    server.answer("history", {"event": "result", "relocations": []})
    assert commands.cancel(client, "web")["outcome"] == "failed"
    assert commands.status(client) == [row]
    assert commands.history(client, "web", 5) == []
    assert server.requests[0] == {"verb": "cancel", "relocation": "web"}
    assert server.requests[2] == {"verb": "history", "relocation": "web", "limit": 5}
