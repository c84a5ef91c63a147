"""The journal: what was decided, on disk before anything is done because of it; and the history."""

from relocd.journal.store import Journal

__all__ = ["Journal"]
