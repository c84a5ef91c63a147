"""A carrier that hears its peer can do nothing but move bytes, whoever has taken it over."""

from __future__ import annotations

import os
import signal
import threading
from pathlib import Path

import pytest

from relocd.carrier import control
from relocd.carrier.seal import MEMORY_BYTES, seal
from tests.carrier.carriers import Carrier, stream_pair, tcp_pair
from tests.carrier.mutineer import DEADLY, REFUSED, outcome
from tests.carrier.test_confinement import BEGIN, SIZE, in_child, memory

#: What fails for other reasons, or does harm, where nothing is sealed.
_NOT_TRIED = {
    "become a process more",
    "connect a socket",
    "rename a file",
    "remove a file",
    "mount",
    "raise a limit",
}
_NOT_TRIED |= {"change a file's mode", "set the host's name", "make keys", "watch the kernel", "link a file"}


def test_a_real_carrier_that_hears_its_peer_is_refused_everything(capfd: pytest.CaptureFixture[str]) -> None:
    with Carrier("tests.carrier.mutineer") as carrier:
        near, far = tcp_pair()
        with near:
            carrier.tell(control.Receive(1), far)
            assert carrier.exit_code() == 0
    told = dict(line.split(": ") for line in capfd.readouterr().err.splitlines())
    assert told == dict.fromkeys(REFUSED, "EPERM")


def test_with_the_guests_memory_it_can_write_there_and_nothing_else(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MUTINY_WITH_MEMORY", "yes")
    with Carrier("tests.carrier.mutineer") as carrier:
        near, far = tcp_pair()
        ours, theirs = stream_pair()
        with near, ours:
            carrier.tell(control.Receive(1), far)
            carrier.expect(control.CarrierFilesDone)
            carrier.tell(control.Memory("pc.ram", BEGIN, SIZE), memory())
            carrier.tell(control.Stream(), theirs)
            assert carrier.exit_code() == 0
    told = dict(line.split(": ") for line in capfd.readouterr().err.splitlines())
    assert [name for name, errno in told.items() if errno == "done"] == [
        "write inside",
        "write the last page",
    ]
    assert len(told) == 12
    assert set(told.values()) == {"done", "EPERM"}


@pytest.mark.skipif(os.geteuid() != 0, reason="only root could do all of this to begin with")
@pytest.mark.parametrize("name", sorted(REFUSED.keys() - _NOT_TRIED))
def test_without_the_seal_it_could(name: str) -> None:
    in_child(lambda: _is_done(name))


def _is_done(name: str) -> None:
    assert outcome(REFUSED[name]) == "done"


@pytest.mark.parametrize("name", DEADLY)
def test_what_only_an_intruder_does_ends_the_process(name: str) -> None:
    pid = os.fork()
    if not pid:
        seal()
        outcome(DEADLY[name])
        os._exit(0)
    _, status = os.waitpid(pid, 0)
    assert os.WIFSIGNALED(status)
    assert os.WTERMSIG(status) == signal.SIGSYS


def test_threads_are_possible_and_those_that_ran_already_are_sealed_too() -> None:
    def story() -> None:
        go, found = threading.Event(), []

        def thread() -> None:
            go.wait()
            found.append(outcome(REFUSED["read a file"]))

        before = threading.Thread(target=thread)
        before.start()
        seal()
        after = threading.Thread(target=thread)
        after.start()
        go.set()
        before.join()
        after.join()
        assert found == ["EPERM", "EPERM"]

    in_child(story)


def test_memory_is_bounded() -> None:
    def story() -> None:
        seal()
        bytearray(MEMORY_BYTES // 2)
        with pytest.raises(MemoryError):
            bytearray(MEMORY_BYTES + (64 << 20))  # more than could have become free meanwhile

    in_child(story)


def test_a_carrier_that_hears_its_peer_cannot_raise_its_limits() -> None:
    with Carrier() as carrier:
        before = _limits(carrier.process.pid)
        near, far = tcp_pair()
        with near:
            carrier.tell(control.Receive(1), far)
            carrier.expect(control.CarrierFilesDone)
            limits = _limits(carrier.process.pid)
    assert before["Max data size"] == "unlimited"
    assert int(limits["Max data size"]) < MEMORY_BYTES + (256 << 20)
    assert limits["Max core file size"] == "0"
    assert int(limits["Max open files"]) <= 128


def _limits(pid: int) -> dict[str, str]:
    lines = Path(f"/proc/{pid}/limits").read_text().splitlines()[1:]
    return {line[:25].strip(): line[26:].split()[1] for line in lines}
