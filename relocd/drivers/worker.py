"""A thread for calls that may block, in the order they were asked for."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import ParamSpec, TypeVar

from relocd.drivers.aio import awaited

_P = ParamSpec("_P")
_T = TypeVar("_T")


class Worker:
    """One thread.

    It starts with the first call and stays in the network namespace of whoever made that call.
    """

    def __init__(self, name: str) -> None:
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix=name)

    async def run(self, function: Callable[_P, _T], *args: _P.args, **kwargs: _P.kwargs) -> _T:
        """Call ``function`` in the thread; return or raise what it does.

        Cancelling the wait does not stop a call that has begun.
        """
        return await awaited(asyncio.wrap_future(self._thread.submit(function, *args, **kwargs)))

    def stop(self) -> None:
        """Take no more calls; those already asked for are still made."""
        self._thread.shutdown(wait=False)
