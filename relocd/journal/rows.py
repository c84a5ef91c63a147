"""Records and moments as rows of the journal, and back."""

from __future__ import annotations

import json
from uuid import UUID

import xxhash

from relocd.domain.record import from_sxp, to_sxp
from relocd.errors import ConfigError, JournalError
from relocd.handover.record import Mark, Record, Role
from relocd.handover.timeline import Moment, MomentKind
from relocd.sxp import dumps, parse_one

Row = tuple[object, ...]

RECORD_COLUMNS = (
    "id, role, domain, live, peer_host, peer_port, token, was_paused, mark, began_s, outcome, secure"
)
MOMENT_COLUMNS = "at_s, kind, detail"

_WAY_OUT = "Look on the peers which domains run where, then move the journal away (docs/operations.md)."


def record_row(record: Record) -> Row:
    """The values of RECORD_COLUMNS."""
    return (
        str(record.relocation),
        record.role.value,
        dumps(to_sxp(record.domain)),
        int(record.live),
        record.peer_host,
        record.peer_port,
        record.token,
        int(record.was_paused),
        record.mark.value,
        record.began_s,
        json.dumps(record.outcome),
        int(record.secure),
    )


def seal(row: Row) -> str:
    """A checksum over the values of RECORD_COLUMNS: a disk that flips a bit must not flip a decision."""
    return xxhash.xxh3_64_hexdigest(json.dumps(row, default=repr).encode())  # damage turns texts into bytes


def record_of(row: Row) -> Record:
    """The record of a row of RECORD_COLUMNS and its seal. Raises JournalError if it cannot be read."""
    *values, sealed = row
    if seal(tuple(values)) != sealed:
        raise JournalError(f"record {values[0]} of the journal cannot be read: it is damaged", hint=_WAY_OUT)
    return read_record(tuple(values))


def read_record(row: Row) -> Record:
    """The record of a row of RECORD_COLUMNS. Raises JournalError if it cannot be read."""
    identity, role, domain, live, host, port, token, was_paused, mark, began_s, outcome, secure = row
    try:
        facts = json.loads(str(outcome))
        if not isinstance(facts, dict):
            raise ValueError("its outcome is no object")
        return Record(
            UUID(str(identity)),
            Role(str(role)),
            from_sxp(parse_one(str(domain), source=f"journal record {identity}")),
            bool(live),
            str(host),
            int(str(port)),
            str(token),
            bool(was_paused),
            Mark(str(mark)),
            float(str(began_s)),
            facts,
            bool(secure),
        )
    except (ConfigError, ValueError, RecursionError) as error:
        raise JournalError(
            f"record {identity} of the journal cannot be read: {error}", hint=_WAY_OUT
        ) from error


def moment_row(moment: Moment) -> Row:
    """The values of MOMENT_COLUMNS."""
    return moment.at_s, moment.kind.value, json.dumps(moment.detail)


def moment_of(row: Row) -> Moment:
    """The moment of a row. Raises JournalError if it cannot be read."""
    try:
        at_s, kind, detail = row
        facts = json.loads(str(detail))
        if not isinstance(facts, dict):
            raise ValueError("its detail is no object")
        return Moment(float(str(at_s)), MomentKind(str(kind)), facts)
    except (ValueError, RecursionError) as error:
        raise JournalError(f"the journal holds a moment that cannot be read: {error}") from error
