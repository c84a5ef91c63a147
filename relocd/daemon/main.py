"""The program ``relocd``: reads its arguments and its configuration, then runs the service in the foreground."""

from __future__ import annotations

import argparse
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from relocd import __version__
from relocd.allow import AllowList
from relocd.config.load import load_config
from relocd.errors import ConfigError, RelocdError

if TYPE_CHECKING:
    from relocd.config.load import Loaded

_EPILOG = """\
signals: SIGTERM and SIGINT stop relocd (domains keep running); SIGHUP reloads the configuration.
exit codes: 0 stopped as asked, 1 failure, 4 configuration error, 10 journal unusable.
"""


def parser() -> argparse.ArgumentParser:
    """The command line."""
    parse = argparse.ArgumentParser(
        prog="relocd",
        description="The relocation daemon: receives running domains from allowed peers, sends domains out.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parse.add_argument("--config", type=Path, default=Path("/etc/relocd/relocd-config.sxp"), metavar="FILE")
    parse.add_argument("--state-dir", type=Path, default=Path("/var/lib/relocd"), metavar="DIR")
    parse.add_argument("--run-dir", type=Path, default=Path("/run/relocd"), metavar="DIR")
    parse.add_argument(
        "--check-config", action="store_true", help="read the configuration, say what is wrong, end"
    )
    parse.add_argument("--version", action="version", version=f"relocd {__version__}")
    return parse


def read_config(path: Path) -> Loaded:
    """Load the file, its allow-list included. Raises ConfigError."""
    try:
        text = path.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
        raise ConfigError(
            f"cannot be read: {reason}",
            source=str(path),
            hint="Give another with --config; etc/relocd-config.sxp of the distribution is a commented example.",
        ) from error
    loaded = load_config(text, source=str(path))
    AllowList(loaded.config.hosts_allow)
    return loaded


def main(argv: list[str] | None = None) -> None:
    """Entry point."""
    arguments = parser().parse_args(argv)
    try:
        loaded = read_config(arguments.config)
        for warning in loaded.warnings:
            print(f"relocd: warning: {warning}", file=sys.stderr)
        if arguments.check_config:
            print(f"{arguments.config}: ok")
            return
        code = run(loaded, arguments)
    except RelocdError as error:
        complain(error)
        code = error.exit_code
    sys.exit(code)


def complain(error: RelocdError) -> None:
    """Say what is wrong and what to do."""
    print(f"relocd: {error}", file=sys.stderr)
    if error.hint:
        print(f"relocd: {error.hint}", file=sys.stderr)


def run(loaded: Loaded, arguments: argparse.Namespace) -> int:
    """Install the reactor, run the service until it is told to stop, return the exit code."""
    from twisted.internet import asyncioreactor

    asyncioreactor.install()
    from twisted.internet import reactor

    from relocd.daemon.logs import begin_logging
    from relocd.daemon.service import Places, Service

    begin_logging(loaded.config)
    places = Places(arguments.config, arguments.state_dir.absolute(), arguments.run_dir.absolute())
    service = Service(reactor, loaded.config, places)
    return _Runner(reactor, service).run()


class _Runner:
    """Starts the service when the reactor runs, and stops it on a signal, once."""

    def __init__(self, reactor: Any, service: Any) -> None:
        self._reactor = reactor
        self._service = service
        self._code = 0

    def run(self) -> int:
        self._reactor.callWhenRunning(self._start)
        self._reactor.run()
        return self._code

    def _start(self) -> None:
        from twisted.internet.defer import Deferred

        # The reactor's own handlers would stop it at once; ours see the relocations to their end first.
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._on_stop_signal)
        signal.signal(signal.SIGHUP, lambda *_: self._reactor.callFromThread(self._service.reload))
        Deferred.fromCoroutine(self._service.start()).addErrback(self._failed)

    def _on_stop_signal(self, *_: object) -> None:
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, signal.SIG_IGN)
        self._reactor.callFromThread(self._stop)

    def _stop(self) -> None:
        from twisted.internet.defer import Deferred

        stopping = Deferred.fromCoroutine(self._service.stop())
        stopping.addCallbacks(lambda _: self._reactor.stop(), self._failed)

    def _failed(self, failure: Any) -> None:
        error = failure.value
        if isinstance(error, RelocdError):
            complain(error)
            self._code = error.exit_code
        else:
            failure.printTraceback(file=sys.stderr)
            self._code = 1
        if self._reactor.running:
            self._reactor.stop()
