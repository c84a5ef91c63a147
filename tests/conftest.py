"""For all tests."""

from __future__ import annotations

import signal

# A shell that starts a run in the background has it ignore Ctrl-C, and all that it starts. The tests are about
# programs that somebody started in the foreground.
signal.signal(signal.SIGINT, signal.default_int_handler)
