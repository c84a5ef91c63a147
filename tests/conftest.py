"""For all tests."""

from __future__ import annotations

import signal

from hypothesis import settings

# A busy machine takes longer than an example's usual limit; what hangs is ended by pytest's timeout.
settings.register_profile("relocd", deadline=None)
settings.load_profile("relocd")

# A shell that starts a run in the background has it ignore Ctrl-C, and all that it starts. The tests are about
# programs that somebody started in the foreground.
signal.signal(signal.SIGINT, signal.default_int_handler)
