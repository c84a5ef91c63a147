"""The tables of relocations, under way and past."""

from __future__ import annotations

from relocd.cli.records import history_table, status_table


def row(relocation: str, role: str, domain: str, peer: str, **more: object) -> dict[str, object]:
    """A relocation as the daemon describes it."""
    return {"relocation": relocation, "role": role, "domain": domain, "peer": peer, **more}


def test_status_says_whether_the_peer_is_heard() -> None:
    text = status_table(
        [
            row("r1", "source", "web", "hostb", state="moving", connected=True),
            row("r2", "target", "db", "hostc", state="prepared", connected=False),
            row("r3", "source", "mail", "hostb", state="opening", phase="queue", connected=False),
        ]
    )
    first, second, third = text.splitlines()[1:]
    assert first.split() == ["r1", "source", "web", "hostb", "moving", "connected"]
    assert second.split() == ["r2", "target", "db", "hostc", "prepared", "being", "asked"]
    assert third.split() == ["r3", "source", "mail", "hostb", "queued", "not", "asked", "yet"]


def test_history_shows_outcomes_and_open_ends() -> None:
    done = {"outcome": "completed", "duration_s": 4.2, "downtime_ms": 31.2, "bytes_sent": 1 << 20}
    text = history_table(
        [
            row("r1", "source", "web", "b", began_s=0, outcome=done),
            row("r2", "target", "db", "c", began_s=0, mark="begun", outcome=None),
        ]
    )
    first, second = text.splitlines()[1:]
    assert first.split()[2:] == [
        "source",
        "web",
        "b",
        "completed",
        "4.2",
        "s",
        "31",
        "ms",
        "1.0",
        "MiB",
        "r1",
    ]
    assert second.split()[2:] == ["target", "db", "c", "begun", "r2"]
