"""Where log lines go: stderr or a file, filtered by level."""

from __future__ import annotations

import sys
from pathlib import Path

from twisted.logger import (
    FilteringLogObserver,
    LogLevel,
    LogLevelFilterPredicate,
    globalLogBeginner,
    textFileLogObserver,
)

from relocd.config import Config


def begin_logging(config: Config) -> None:
    """Start logging as the configuration says. Output of libraries on stdout and stderr is left alone."""
    stream = Path(config.logfile).open("a", encoding="utf-8") if config.logfile else sys.stderr  # noqa: SIM115
    predicate = LogLevelFilterPredicate(defaultLogLevel=LogLevel.levelWithName(config.loglevel.value))
    observer = FilteringLogObserver(textFileLogObserver(stream), [predicate])
    globalLogBeginner.beginLoggingTo([observer], redirectStandardIO=False)
