"""A copy that a former daemon received: is it whole?"""

from __future__ import annotations

from twisted.internet.defer import Deferred, TimeoutError  # noqa: A004 - Twisted's own

from relocd.daemon.context import Context
from relocd.drivers.base import Incoming
from relocd.errors import DriverError

#: A copy that is complete says so at once; one that is not, never, in seconds.
LOADED_WAIT_S = 3.0


async def require_loaded(context: Context, incoming: Incoming, name: str) -> None:
    """Raises DriverError if the copy of the domain of that name is incomplete."""
    loaded = Deferred.fromCoroutine(incoming.loaded())
    try:
        await loaded.addTimeout(LOADED_WAIT_S, context.reactor)
    except TimeoutError as error:
        raise DriverError(
            f"the copy of domain '{name}' here is incomplete and cannot be resumed",
            hint="'--discard' removes it.",
        ) from error
