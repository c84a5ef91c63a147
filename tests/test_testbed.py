"""The testbed tested on its own: what the other tests, the benches and the demonstration rest on."""

from __future__ import annotations

import shutil
import signal
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from tests.testbed import (
    GUEST_IP,
    Guest,
    GuestImage,
    MemCheck,
    RawQemu,
    RelocdHost,
    Shape,
    SshSession,
    TcpEchoSession,
    Testbed,
    TestbedError,
    UdpEchoClient,
    build_image,
    full_sweep,
    guest_stat,
    record_stream,
    ssh_argv,
    wait_filled,
)
from tests.testbed import memcheck as memcheck_client
from tests.testbed.daemons import PORT
from tests.testbed.image import CHECKOUT, cache_directory
from tests.testbed.initramfs import compile_program
from tests.testbed.namespaces import remove_leftovers
from tests.testbed.netns import NAMESPACES, socket_in
from tests.testbed.processes import kill_all, start_ticks, stop_child
from tests.testbed.udp_probe import HEADER_BYTES, RECORD

LINE = (
    "MEMCHECK t=12.300 filled=64 want=64 sweeps=3 verified=50000 dirtied=45 bad=0 seq=7 boot=0123456789abcdef"
)
LOOPBACK_PORT = 17007  # in a namespace of its own


@pytest.fixture(scope="module")
def image() -> GuestImage:
    return build_image()


@pytest.fixture
def bed() -> Iterator[Testbed]:
    with Testbed() as built:
        yield built


def namespaces() -> set[str]:
    return {path.name for path in NAMESPACES.iterdir()} if NAMESPACES.is_dir() else set()


def names_of(bed: Testbed) -> set[str]:
    return {host.netns for host in (*bed.hosts, bed.client, bed.switch)}


class TestMemCheckLine:
    def test_every_field_is_read(self) -> None:
        read = memcheck_client.parse(f"noise\n{LINE}\n/ # ")
        assert read == MemCheck(12.3, 64, 64, 3, 50000, 45, 0, 7, "0123456789abcdef")
        assert read.full
        assert read.pages == 64 * 256

    def test_the_last_complete_line_counts(self) -> None:
        assert memcheck_client.parse(f"{LINE}\n{LINE.replace('seq=7', 'seq=8')}\nMEMCHECK t=13").seq == 8

    @pytest.mark.parametrize("text", ["", "GUEST READY", "MEMCHECK", LINE.replace("bad=0", "")])
    def test_anything_else_is_an_error(self, text: str) -> None:
        with pytest.raises(ValueError, match="memory checker"):
            memcheck_client.parse(text)

    @pytest.mark.parametrize(
        "later",
        [
            LINE.replace("seq=7", "seq=9").replace("boot=0", "boot=1"),
            LINE.replace("seq=7", "seq=6"),
            LINE.replace("seq=7", "seq=9").replace("verified=5", "verified=4"),
        ],
        ids=["rebooted", "seq went back", "verified went back"],
    )
    def test_a_guest_that_began_anew_does_not_follow(self, later: str) -> None:
        earlier = memcheck_client.parse(LINE)
        assert memcheck_client.parse(LINE.replace("seq=7", "seq=9")).follows(earlier)
        assert not memcheck_client.parse(later).follows(earlier)


class TestEchoFigures:
    """Gaps and losses from notes that were written here, not measured."""

    @pytest.fixture
    def client(self, monkeypatch: pytest.MonkeyPatch) -> UdpEchoClient:
        monkeypatch.setattr(time, "monotonic", lambda: 10.0)
        return UdpEchoClient(Testbed().client, GUEST_IP)

    @staticmethod
    def note(client: UdpEchoClient, *records: tuple[float, float]) -> None:
        packed = b"".join(RECORD.pack(round(sent * 1e9), round(came * 1e9)) for sent, came in records)
        client.notes.write_bytes(struct.pack("=Q", len(records)).ljust(HEADER_BYTES, b"\0") + packed)

    def test_gap_between_echoes(self, client: UdpEchoClient) -> None:
        self.note(client, (1.0, 1.1), (2.0, 0), (3.0, 4.1), (4.9, 5.0), (9.9, 9.95))
        assert client.longest_gap(0.0, 4.0) == client.longest_gap(1.05, 1.2)
        assert client.blackout_ms(0.0, 4.0) == pytest.approx(3000)
        assert client.blackout_ms(4.5, 5.0) == pytest.approx(900)
        assert client.stats().lost == 1

    def test_gap_that_has_not_ended(self, client: UdpEchoClient) -> None:
        self.note(client, (1.0, 1.1), (2.0, 2.1), (3.0, 0))
        gap = client.longest_gap()
        assert gap.open
        assert gap.ms == pytest.approx(7900)
        assert client.stats().lost == 0, "it may still come"

    def test_echoes_out_of_order(self, client: UdpEchoClient) -> None:
        self.note(client, (1.0, 1.5), (1.1, 1.2), (1.2, 9.9))
        assert client.longest_gap(1.0, 1.4).ms == pytest.approx(300)
        assert np.all(client.round_trips_ms() > 0)

    def test_no_echo_at_all(self, client: UdpEchoClient) -> None:
        self.note(client, (1.0, 0))
        assert client.longest_gap().open


@pytest.mark.netns
class TestGuestPrograms:
    """The guest's programs, compiled for and run on this machine, in a namespace."""

    @pytest.fixture
    def checker(self, bed: Testbed, tmp_path: Path) -> str:
        program = tmp_path / "memcheck"
        compile_program("memcheck.c", program)
        words = ["--fill", "8", "--ws", "2", "--rate", "5", "--interval", "0", "--port", str(LOOPBACK_PORT)]
        bed.client.popen([program, *words], stdout=subprocess.DEVNULL)
        return bed.client.netns

    @staticmethod
    def ask(netns: str, request: str = "stat") -> MemCheck:
        return guest_stat(netns, "127.0.0.1", request=request, port=LOOPBACK_PORT)

    def sweep(self, netns: str) -> MemCheck:
        before = self.ask(netns, "sweep")
        while (now := self.ask(netns)).verified < before.verified + before.pages:
            pass
        return now

    def test_sound_memory_stays_sound(self, checker: str) -> None:
        first = self.sweep(checker)
        second = self.sweep(checker)
        assert second.follows(first)
        assert second.sweeps > first.sweeps
        assert second.dirtied > 0
        assert second.bad == 0

    def test_one_flipped_bit_is_found(self, checker: str) -> None:
        while not self.ask(checker).full:
            pass
        self.ask(checker, "corrupt")
        assert self.sweep(checker).bad > 0

    def test_what_does_not_fit_is_refused(self, bed: Testbed, tmp_path: Path) -> None:
        compile_program("memcheck.c", tmp_path / "memcheck")
        with pytest.raises(TestbedError, match="do not fit"):
            bed.client.run([tmp_path / "memcheck", "--fill", "999999999"])

    def test_echo_serves_both_protocols(self, bed: Testbed, tmp_path: Path) -> None:
        compile_program("echo.c", tmp_path / "echo")
        bed.client.popen([tmp_path / "echo"])
        with UdpEchoClient(bed.client, "127.0.0.1") as udp:
            udp.wait_answered()
            with TcpEchoSession(bed.client.netns, "127.0.0.1", interval_s=0.001) as tcp:
                tcp.wait_more(50)
                assert tcp.stats().error == ""


@pytest.mark.e2e
class TestImage:
    @pytest.fixture
    def cache(self, image: GuestImage, tmp_path: Path) -> Path:
        """A cache that has the kernel's package and nothing else."""
        shutil.copytree(cache_directory() / "packages", tmp_path / "packages")
        return tmp_path

    def test_built_once_and_again_when_damaged(self, cache: Path) -> None:
        built = build_image(cache)
        stamp = built.ramdisk.stat().st_mtime_ns
        assert build_image(cache).ramdisk.stat().st_mtime_ns == stamp, "from the cache"
        with built.ramdisk.open("r+b") as file:
            file.write(b"damage")
        again = build_image(cache)
        assert again == built
        assert again.ramdisk.read_bytes()[:6] != b"damage"
        assert not list(cache.glob("build-*"))


@pytest.mark.netns
class TestNetwork:
    def test_hosts_reach_each_other_and_the_client(self, bed: Testbed) -> None:
        for host in bed.hosts:
            assert reaches(bed.client.netns, host.address)
        assert reaches(bed.hosta.netns, bed.hostb.address)

    def test_a_cut_host_is_alone_until_healed(self, bed: Testbed) -> None:
        bed.cut(bed.hosta)
        assert not reaches(bed.client.netns, bed.hosta.address, within_s=1)
        assert reaches(bed.client.netns, bed.hostb.address)
        bed.heal(bed.hosta)
        assert reaches(bed.client.netns, bed.hosta.address)

    def test_shape_limits_both_directions(self, bed: Testbed) -> None:
        def limits() -> int:
            places = [(bed.switch, host.name) for host in bed.hosts] + [
                (host, "uplink") for host in bed.hosts
            ]
            shown = [place.run(["tc", "qdisc", "show", "dev", device]) for place, device in places]
            return sum(" rate 1Gbit " in text for text in shown)

        bed.shape(Shape(rate="10mbit"))
        bed.shape()
        assert limits() == 4
        bed.unshape()
        bed.unshape()
        assert limits() == 0

    def test_a_tap_does_not_change_the_bridge(self, bed: Testbed) -> None:
        before = bed.hosta.run(["cat", "/sys/class/net/xenbr0/address"])
        for number in range(5):
            bed.hosta.add_tap(f"tap{number}")
        assert bed.hosta.run(["cat", "/sys/class/net/xenbr0/address"]) == before
        assert bed.hosta.links("tun") == [f"tap{number}" for number in range(5)]


def reaches(netns: str, address: str, within_s: float = 20) -> bool:
    """Whether a host answers: with a refusal, since nothing listens there. A lost ARP request takes a while."""
    deadline = time.monotonic() + within_s
    while time.monotonic() < deadline:
        with socket_in(netns, socket.SOCK_STREAM) as sock:
            sock.settimeout(max(0.01, deadline - time.monotonic()))
            try:
                sock.connect((address, 9))
            except ConnectionRefusedError:
                return True
            except OSError:
                continue
    return False


@pytest.mark.netns
class TestTeardown:
    def test_after_success_and_after_failure(self) -> None:
        with Testbed() as first:
            child = first.hosta.popen(["sleep", "1000"])
            stray = int(first.hostb.run(["sh", "-c", "sleep 1000 > /dev/null 2>&1 & echo $!"]))
        second = Testbed()
        with pytest.raises(ZeroDivisionError), second:
            raise ZeroDivisionError
        assert not (names_of(first) | names_of(second)) & namespaces()
        assert child.poll() is not None
        assert start_ticks(stray) is None

    @pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGKILL])
    def test_after_a_signal(self, number: signal.Signals) -> None:
        program = (
            "import signal\n"
            "from tests.testbed import Testbed\n"
            "with Testbed() as bed:\n"
            "    child = bed.hosta.popen(['sleep', '1000'])\n"
            "    print(bed.hosta.netns, child.pid, flush=True)\n"
            "    signal.pause()\n"
        )
        argv = [sys.executable, "-c", program]
        run = subprocess.Popen(argv, cwd=CHECKOUT, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
        assert run.stdout
        with run.stdout:
            netns, pid = run.stdout.readline().decode().split()
            run.send_signal(number)
            run.wait(30)
        assert (netns in namespaces()) == (number == signal.SIGKILL)
        remove_leftovers()
        assert netns not in namespaces()
        assert start_ticks(int(pid)) is None

    def test_what_is_alive_is_not_a_leftover(self, bed: Testbed) -> None:
        assert not names_of(bed) & set(remove_leftovers())
        assert names_of(bed) <= namespaces()

    def test_processes_that_are_gone_already(self) -> None:
        child = subprocess.Popen(["true"])
        child.wait()
        kill_all([child.pid])
        assert stop_child(child) == 0


@pytest.mark.e2e
class TestGuest:
    """One guest on hosta, by QEMU alone."""

    @pytest.fixture
    def guest(self) -> Guest:
        return Guest(options={"fill_mib": 16, "working_set_mib": 4, "dirty_mb_s": 2})

    @pytest.fixture
    def qemu(self, bed: Testbed, image: GuestImage, guest: Guest) -> Iterator[RawQemu]:
        with RawQemu(image, cmdline=guest.cmdline, host=bed.hosta, tap="tap0") as qemu:
            qemu.wait_ready()
            yield qemu

    def test_it_answers_in_all_ways(
        self, bed: Testbed, image: GuestImage, guest: Guest, qemu: RawQemu
    ) -> None:
        first = wait_filled(bed.client.netns, guest.ip)
        assert bed.client.run(ssh_argv(image, guest.ip, "hostname")).strip() == guest.name
        qemu.console.send("echo answer $((40 + 2))")
        qemu.console.wait_for("answer 42", 30)
        second = full_sweep(bed.client.netns, guest.ip)
        assert second.follows(first)
        assert second.dirtied > first.dirtied
        assert second.bad == 0

    def test_a_reboot_shows(self, bed: Testbed, guest: Guest, qemu: RawQemu) -> None:
        first = guest_stat(bed.client.netns, guest.ip)
        qemu.console.send("reboot -f")
        qemu.console.wait_for("GUEST READY", 120, after=len(qemu.console.text))
        assert guest_stat(bed.client.netns, guest.ip).boot_id != first.boot_id

    def test_the_power_button_works(self, qemu: RawQemu) -> None:
        qemu.qmp.command("system_powerdown")
        qemu.qmp.wait_event(("SHUTDOWN",), 60)
        assert qemu.process.wait(60) == 0

    def test_a_migration_by_qemu_keeps_everything(
        self, bed: Testbed, image: GuestImage, guest: Guest, qemu: RawQemu
    ) -> None:
        before = wait_filled(bed.client.netns, guest.ip)
        incoming = RawQemu(image, cmdline=guest.cmdline, host=bed.hostb, tap="tap0", incoming=True)
        with (
            UdpEchoClient(bed.client, guest.ip) as udp,
            TcpEchoSession(bed.client.netns, guest.ip) as tcp,
            SshSession(bed.client, image, guest.ip) as ssh,
            incoming as target,
        ):
            udp.wait_answered()
            tcp.wait_more(5)
            ssh.wait_more(5)
            began_s = time.monotonic()
            figures = qemu.migrate_tcp(target, bed.hostb.address)
            ended_s = time.monotonic()
            assert figures.completed
            assert figures.rounds >= 2
            assert figures.sent_bytes > 16 << 20
            assert stop_child(qemu.process) is not None
            tcp.wait_more(20)
            ssh.wait_more(10)
            udp.wait_echo_after(ended_s)
            assert not udp.longest_gap(began_s, ended_s).open
            after = full_sweep(bed.client.netns, guest.ip)
            assert after.follows(before)
            assert after.bad == 0

    def test_a_recorded_stream_is_genuine(self, image: GuestImage, tmp_path: Path) -> None:
        recording = record_stream(image, tmp_path / "stream", rounds=3)
        assert recording.figures.rounds >= 4
        with recording.forward.open("rb") as file:
            assert file.read(8) == b"QEVM\x00\x00\x00\x03"
        assert recording.forward.stat().st_size >= recording.figures.sent_bytes
        assert recording.backward.read_bytes().startswith(b"\x00\x02\x00\x04"), "PONG, migration/migration.h"


@pytest.mark.e2e
class TestRelocdHost:
    def test_it_starts_answers_restarts_and_stops(self, bed: Testbed, tmp_path: Path) -> None:
        with RelocdHost(bed.hosta, tmp_path / "hosta") as relocd:
            assert relocd.relocctl("info").result["run_dir"] == str(relocd.run_dir)
            assert relocd.relocctl("destroy", "nobody", check=False).exit_code == 3
            with pytest.raises(TestbedError, match="nobody"):
                relocd.xm("destroy", "nobody")
            relocd.wait_clean()
            relocd.kill()
            relocd.start()
            assert relocd.relocctl("list").result == []
            assert relocd.terminate() == 0

    def test_what_is_left_over_is_seen(self, bed: Testbed, tmp_path: Path) -> None:
        with RelocdHost(bed.hosta, tmp_path / "hosta") as relocd:
            uuid = "7b3f8a3e-3c43-4d1c-9d3c-2f1f4e9f0a11"
            relocd.wait_clean()  # a daemon that has just begun still looks at the packet filter
            bed.hosta.add_tap("tap0")
            (relocd.run_dir / uuid).touch()
            stray = ["sh", "-c", f"exec -a 'stray-{uuid} tap0' sleep 1000 > /dev/null 2>&1 &"]
            bed.hosta.run(["bash", *stray[1:]])
            assert [text.split()[0] for text in relocd.leftovers()] == ["process", "device", "file"]
            assert relocd.leftovers([uuid]) == []

    def test_so_are_connections_and_unfinished_boot_files(self, bed: Testbed, tmp_path: Path) -> None:
        with (
            RelocdHost(bed.hosta, tmp_path / "hosta") as relocd,
            socket_in(bed.hosta.netns, socket.SOCK_STREAM) as sock,
        ):
            relocd.wait_clean()
            (relocd.state_dir / "boot" / "arriving-x").touch()
            (relocd.state_dir / "boot" / ("0" * 64)).touch()
            sock.connect((bed.hosta.address, PORT))
            assert [text.split()[0] for text in relocd.leftovers()] == ["boot", "connection"]
            assert len(relocd.connections(of_daemon=True)) == 1
            sock.close()
            (relocd.state_dir / "boot" / "arriving-x").unlink()
            relocd.wait_clean()

    def test_a_reload_is_waited_for(self, bed: Testbed, tmp_path: Path) -> None:
        with RelocdHost(bed.hosta, tmp_path / "hosta") as relocd:
            relocd.reload({"xen-relocation-hosts-allow": ""})
            assert relocd.ask("info")["domains"] == 0
            with socket_in(bed.hosta.netns, socket.SOCK_STREAM) as sock:
                sock.connect((bed.hosta.address, PORT))
                assert sock.recv(1) == b"", "nobody is let in any more"

    def test_a_bad_configuration_says_why(self, bed: Testbed, tmp_path: Path) -> None:
        with pytest.raises(TestbedError, match="xen-relocation-port"):
            RelocdHost(bed.hosta, tmp_path / "hosta", {"xen-relocation-port": "nonsense"}).__enter__()
