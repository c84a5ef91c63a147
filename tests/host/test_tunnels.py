"""Records of tunnels on a disk."""

from __future__ import annotations

from pathlib import Path
from uuid import UUID

from attrs import evolve

from relocd.host.tunnels import TunnelStore
from relocd.segment.tunnel import Tunnel

TUNNEL = Tunnel(7, "xenbr0", "192.0.2.1", "192.0.2.2", 4789, 8002, guests=frozenset({UUID(int=1)}))


def test_what_was_saved_is_found_by_the_next_daemon(tmp_path: Path) -> None:
    assert list(TunnelStore(tmp_path).load()) == []
    store = TunnelStore(tmp_path)
    store.save(TUNNEL)
    store.save(evolve(TUNNEL, vni=8))
    store.save(evolve(TUNNEL, port=8472))
    assert dict(TunnelStore(tmp_path).load()) == {7: evolve(TUNNEL, port=8472), 8: evolve(TUNNEL, vni=8)}
    for _ in range(2):
        store.remove(7)
    assert [vni for vni, _ in TunnelStore(tmp_path).load()] == [8]


def test_a_record_that_cannot_be_read_keeps_its_number_and_says_why(tmp_path: Path) -> None:
    store = TunnelStore(tmp_path)
    store.save(TUNNEL)
    (tmp_path / "tunnels" / "9.sxp").write_text("(tunnel (version 9))")
    (tmp_path / "tunnels" / "notes.sxp").write_text("not a number")
    found = dict(store.load())
    assert found[7] == TUNNEL
    assert "9.sxp" in str(found[9])
    assert len(found) == 2
