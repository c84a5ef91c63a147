"""How a command tells of a failure: ``Error: text``, the next step on the line below, and an exit code."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterable

from relocd.cli.client import DaemonError, JsonObject
from relocd.cli.exitcodes import FAILURE, INTERRUPTED
from relocd.errors import RelocdError


def guarded(run: Callable[[], int]) -> int:
    """Run a command, report what it raises on purpose and return the exit code."""
    try:
        status = run()
        sys.stdout.flush()
        return status
    except RelocdError as error:
        report(str(error), error.hint)
        return exit_status(error)
    except KeyboardInterrupt:
        print("Interrupted.", file=sys.stderr)
        return INTERRUPTED
    except BrokenPipeError:
        # The reader of the output has enough (head). Python flushes again at exit and must not stumble then.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return FAILURE


def report(message: str, hint: str = "", *, prefix: str = "Error: ") -> None:
    """Tell of a failure on stderr: the message on one line, the hint on the next."""
    print(prefix + printable(message), file=sys.stderr)
    if hint:
        print(printable(hint), file=sys.stderr)


def warn(texts: Iterable[str]) -> None:
    """Tell of oddities that hindered nothing."""
    for text in texts:
        report(text, prefix="Warning: ")


def exit_status(error: RelocdError) -> int:
    """The exit code of an error, wherever it was raised."""
    return error.status if isinstance(error, DaemonError) else error.exit_code


def error_code(error: RelocdError) -> str:
    """The stable name of an error, wherever it was raised."""
    return error.reply_code if isinstance(error, DaemonError) else error.code


def error_object(error: RelocdError) -> JsonObject:
    """An error for programs."""
    return {
        "error": str(error),
        "code": error_code(error),
        "hint": error.hint,
        "exit_code": exit_status(error),
    }


def printable(text: str) -> str:
    """``text`` on one line and without what could steer a terminal: some of it was written by a peer."""
    return "".join(char if char.isprintable() else "?" for char in " ".join(text.split()))
