"""How failures are told, and that no text of a peer can steer the terminal."""

from __future__ import annotations

import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relocd.cli.client import DaemonError
from relocd.cli.failures import error_object, guarded, printable
from relocd.errors import ConfigError, UnknownDomain


def _raise(error: BaseException) -> int:
    raise error


def test_an_error_is_a_line_and_its_hint_the_next(capsys: pytest.CaptureFixture[str]) -> None:
    assert guarded(lambda: _raise(UnknownDomain("web"))) == 3
    captured = capsys.readouterr()
    assert captured.err == (
        "Error: Domain 'web' does not exist.\n'relocctl list' shows the domains of this host.\n"
    )
    assert captured.out == ""


def test_an_error_without_a_hint_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert guarded(lambda: _raise(ConfigError("bad", source="web.cfg", line=3, column=7))) == 4
    assert capsys.readouterr().err == "Error: web.cfg:3:7: bad\n"


def test_an_interrupt_has_the_shells_code(capsys: pytest.CaptureFixture[str]) -> None:
    assert guarded(lambda: _raise(KeyboardInterrupt())) == 130
    assert capsys.readouterr().err == "Interrupted.\n"


def test_a_reader_that_left_is_no_traceback() -> None:
    script = "from relocd.cli.failures import guarded; guarded(lambda: print('x' * 200000) or 0)"
    pipeline = f'{sys.executable} -c "{script}" | head -c 1'
    done = subprocess.run(["sh", "-c", pipeline], capture_output=True, text=True, timeout=60, check=True)
    assert (done.stdout, done.stderr) == ("x", "")


def test_an_error_for_programs() -> None:
    error = DaemonError({"message": "no", "code": "refused", "hint": "free memory", "exit_code": 7})
    assert error_object(error) == {"error": "no", "code": "refused", "hint": "free memory", "exit_code": 7}


@given(st.text())
def test_what_is_printed_is_one_line_without_control_characters(text: str) -> None:
    shown = printable(text)
    assert shown.isprintable()
    assert len(shown.splitlines()) <= 1


def test_escape_sequences_of_a_peer_are_shown_not_obeyed() -> None:
    assert printable("no\x1b[2Jmemory\n left") == "no?[2Jmemory left"
