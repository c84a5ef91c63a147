"""A real QEMU moves to another one through two carriers, and arrives unchanged."""

from __future__ import annotations

import os
import socket
import tempfile
from pathlib import Path

import pytest

from relocd.carrier import control
from relocd.drivers.qemu.memory import QUESTION, address_in
from tests.carrier.carriers import Carrier, tcp_pair
from tests.pages.record_real import MEMORY_MIB, migrating, spreading

pytestmark = pytest.mark.qemu

PAGE = 4096


@pytest.mark.parametrize(("running", "lanes"), [(False, 1), (True, 2)])
@pytest.mark.parametrize("direct", [False, True], ids=["rebuilt", "placed"])
def test_a_guest_arrives_as_it_left(running: bool, lanes: int, direct: bool) -> None:
    size_bytes = MEMORY_MIB << 20
    with (
        Carrier() as sender,
        Carrier() as receiver,
        migrating(running=running) as (source, target, out, incoming),
    ):
        ends = [tcp_pair() for _ in range(lanes)]
        sender.tell(control.Send(lanes), *[near for near, _ in ends])
        receiver.tell(control.Receive(lanes), *[far for _, far in ends])
        if direct:
            answer = target.command("human-monitor-command", **{"command-line": QUESTION})
            memory = os.open(f"/proc/{target.process.pid}/mem", os.O_WRONLY)
            receiver.tell(control.Memory("pc.ram", address_in(answer), size_bytes), memory)
        for carrier, sock in ((sender, out), (receiver, incoming)):
            carrier.expect(control.CarrierFilesDone)
            carrier.tell(control.Stream(), sock)
        assert target.wait_for_migration("completed", "failed") == "completed"
        loaded = receiver.digest()  # as early as the daemon would ask
        assert source.wait_for_migration("completed", "failed") == "completed"
        sent = sender.expect(control.CarrierEnded)
        received = receiver.last(control.CarrierEnded)
        assert loaded == sent.totals == received.totals
        assert sent.counters.zero_pages > 7000
        assert source.command("query-status")["status"] == "postmigrate"
        assert target.command("query-status")["status"] in ("paused", "prelaunch")
        with tempfile.TemporaryDirectory() as name:
            assert source.memory(Path(name)) == target.memory(Path(name))


@pytest.mark.parametrize(("running", "channels"), [(False, 2), (True, 2), (True, 4)])
def test_a_guest_arrives_over_channels_as_it_left(running: bool, channels: int) -> None:
    with (
        Carrier() as sender,
        Carrier() as receiver,
        spreading(channels, running=running) as (source, target, out, incoming),
    ):
        begin_over_channels(sender, receiver, channels)
        for carrier, socks in ((sender, out), (receiver, incoming)):
            carrier.tell(control.Stream(channels), *socks)
        assert target.wait_for_migration("completed", "failed") == "completed"
        loaded = receiver.digest()
        assert source.wait_for_migration("completed", "failed") == "completed"
        sent = sender.expect(control.CarrierEnded)
        received = receiver.last(control.CarrierEnded)
        assert loaded == sent.totals == received.totals
        assert sent.counters.saved_compression_bytes > sent.counters.pages * PAGE // 4
        with tempfile.TemporaryDirectory() as name:
            memory = source.memory(Path(name))
            assert memory == target.memory(Path(name))
        filled = sum(any(memory[at : at + PAGE]) for at in range(0, len(memory), PAGE))
        assert sent.counters.pages >= filled > 0


def test_a_broken_channel_leaves_the_guest_running_at_the_source() -> None:
    with (
        Carrier() as sender,
        Carrier() as receiver,
        spreading(2, running=True) as (source, _, out, incoming),
    ):
        lanes = begin_over_channels(sender, receiver, 2)
        sender.tell(control.Limit(20_000))
        for carrier, socks in ((sender, out), (receiver, incoming)):
            carrier.tell(control.Stream(2), *socks)
        assert source.wait_for_migration("active") == "active"
        lanes[2].shutdown(socket.SHUT_RDWR)
        for carrier in (sender, receiver):
            assert carrier.expect(control.CarrierFailed).code in ("unreachable", "stream")
        assert source.wait_for_migration("completed", "failed") == "failed"
        assert source.command("query-status")["status"] == "running"


def begin_over_channels(sender: Carrier, receiver: Carrier, channels: int) -> list[socket.socket]:
    """Join the two by a lane for the main stream and one for each channel; returns the sender's ends of them."""
    ends = [tcp_pair() for _ in range(1 + channels)]
    kept = [near.dup() for near, _ in ends]
    sender.tell(control.Send(1 + channels, channels=channels), *[near for near, _ in ends])
    receiver.tell(control.Receive(1 + channels, channels=channels), *[far for _, far in ends])
    for carrier in (sender, receiver):
        carrier.expect(control.CarrierFilesDone)
    return kept


def test_a_broken_lane_leaves_the_guest_running_at_the_source() -> None:
    with Carrier() as sender, Carrier() as receiver, migrating(running=True) as (source, _, out, incoming):
        near, far = tcp_pair()
        sender.tell(control.Send(1), near)
        receiver.tell(control.Receive(1), far)
        sender.tell(control.Limit(20_000))  # far from done when the lane breaks
        for carrier, sock in ((sender, out), (receiver, incoming)):
            carrier.expect(control.CarrierFilesDone)
            carrier.tell(control.Stream(), sock)
        assert source.wait_for_migration("active") == "active"
        receiver.process.kill()
        assert sender.expect(control.CarrierFailed).code == "unreachable"
        assert source.wait_for_migration("completed", "failed") == "failed"
        assert source.command("query-status")["status"] == "running"
