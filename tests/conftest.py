"""For all tests."""

from __future__ import annotations

import signal

from hypothesis import settings

# A shell that starts a run in the background has it ignore Ctrl-C, and all that it starts. The tests are about
# programs that somebody started in the foreground.
signal.signal(signal.SIGINT, signal.default_int_handler)

# A busy machine is no failure, and no test asserts how long something takes.
settings.register_profile("no deadline", deadline=None)
settings.load_profile("no deadline")
