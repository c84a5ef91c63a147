"""Shapes for what relocd answers. ``--json`` prints objects as they came; these are for people and xm."""

from __future__ import annotations

from typing import Any

from attrs import frozen

from relocd.cli.client import JsonObject
from relocd.cli.exitcodes import FAILURE, SUCCESS
from relocd.errors import ProtocolError


@frozen
class Domain:
    """A domain object. ``start_time`` is in seconds since 1970, None where relocd does not tell it."""

    name: str
    id: int
    uuid: str
    state: str
    memory_mib: int
    vcpus: int
    cpu_time_s: float
    start_time: float | None
    raw: JsonObject

    @classmethod
    def of(cls, value: object) -> Domain:
        """Read a domain object. Raises ProtocolError if it is none."""
        raw = as_object(value, "a domain")
        try:
            return cls(
                name=str(raw["name"]),
                id=int(raw["id"]),
                uuid=str(raw.get("uuid", "")),
                state=str(raw["state"]),
                memory_mib=int(raw.get("memory_mib", 0)),
                vcpus=int(raw.get("vcpus", 1)),
                cpu_time_s=float(raw.get("cpu_time_s") or 0.0),
                start_time=_optional_float(raw.get("start_time")),
                raw=raw,
            )
        except (KeyError, TypeError, ValueError, OverflowError) as error:
            raise malformed("a domain", error) from None


@frozen
class Check:
    """One line of a preflight: its name, ``pass``, ``warn`` or ``fail``, the reason and what to do."""

    name: str
    verdict: str
    text: str
    remedy: str

    @classmethod
    def of(cls, value: object) -> Check:
        """Read a check object. Raises ProtocolError if it is none."""
        raw = as_object(value, "a check")
        try:
            return cls(str(raw["check"]), str(raw["verdict"]), str(raw["text"]), str(raw.get("remedy") or ""))
        except KeyError as error:
            raise malformed("a check", error) from None


@frozen
class Outcome:
    """How a relocation ended. ``raw`` has every field of docs/control.md, whatever happened.

    ``status`` is the exit code; ``code`` the name of the error, empty when the domain runs on the target.
    """

    raw: JsonObject
    status: int
    code: str = ""

    @property
    def completed(self) -> bool:
        """The domain runs on the target."""
        return self.status == SUCCESS

    @property
    def error(self) -> str:
        """What went wrong, in a sentence."""
        return str(self.raw["error"] or "")

    @property
    def hint(self) -> str:
        """What to do next."""
        return str(self.raw["hint"] or "")

    @classmethod
    def of(
        cls, reply: JsonObject, *, domain: str, host: str, live: bool, status: int, code: str = ""
    ) -> Outcome:
        """Complete what relocd said of a relocation, if it came to say anything.

        An ``outcome`` other than ``completed`` never gets exit code 0.
        """
        raw = _NOTHING_MOVED | {"domain": domain, "host": host, "live": live} | reply
        if status == SUCCESS and raw["outcome"] != "completed":
            status = FAILURE
        if status != SUCCESS:
            raw["error"] = raw["error"] or raw.get("message") or f"The outcome is '{raw['outcome']}'."
        return cls(raw | {"exit_code": status}, status, code)


_NOTHING_MOVED: JsonObject = {
    "outcome": "failed",
    "relocation": None,
    "domain": "",
    "uuid": None,
    "host": "",
    "live": False,
    "rounds": 0,
    "duration_s": 0.0,
    "downtime_ms": None,
    "blackout_ms": None,
    "channels": 0,
    "bytes_sent": 0,
    "pages": 0,
    "zero_pages": 0,
    "saved_zero_bytes": 0,
    "saved_compression_bytes": 0,
    "dense_bytes": 0,
    "level_bytes": {},
    "error": None,
    "reasons": [],
    "hint": "",
}


def as_object(value: object, what: str) -> JsonObject:
    """``value`` as a JSON object, or ProtocolError."""
    if not isinstance(value, dict):
        raise malformed(what, TypeError(f"it is {type(value).__name__}"))
    return value


def as_list(value: object, what: str) -> list[Any]:
    """``value`` as a JSON array, or ProtocolError."""
    if not isinstance(value, list):
        raise malformed(what, TypeError(f"it is {type(value).__name__}"))
    return value


def malformed(what: str, error: Exception) -> ProtocolError:
    """relocd's answer does not have the shape of ``what``."""
    reason = f"{error} is missing" if isinstance(error, KeyError) else str(error)
    return ProtocolError(
        f"relocd's answer is not {what}: {reason}.",
        hint="Are this command and the daemon of the same version? Restart relocd.",
    )


def _optional_float(value: object) -> float | None:
    return float(value) if isinstance(value, int | float) else None
