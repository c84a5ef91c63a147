"""What the driver must remember of a domain while no daemon runs: one record each.

    STATE/domains/UUID/record.sxp    (domain-record (version 1) (id ..) (role ..) .. (domain ..))
    STATE/domains/last-id            the id given last

A record is written before the first thing of its domain is made and removed after the last one is gone, so that a
start after a crash finds everything. Everything here blocks.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from uuid import UUID

from attrs import frozen

from relocd.domain.record import from_sxp, to_sxp
from relocd.drivers.qemu.store import Role
from relocd.errors import ConfigError, DriverError
from relocd.host.files import sync_directory, write_whole
from relocd.model import DomainConfig
from relocd.sxp import Node, SList, dumps, parse_one

_VERSION = "1"
_HEAD = "domain-record"


@frozen
class Record:
    """One domain. ``domid`` is Xen's number of it, or 0; ``was_paused`` counts while the role is OUTGOING."""

    config: DomainConfig
    id: int
    role: Role
    domid: int = 0
    was_paused: bool = False

    @property
    def uuid(self) -> UUID:
        return self.config.uuid


class Store:
    """The records below one directory."""

    def __init__(self, state: Path) -> None:
        self._domains = state / "domains"
        self._domains.mkdir(parents=True, exist_ok=True, mode=0o700)

    def next_id(self) -> int:
        """An id that no domain of this host has had."""
        path = self._domains / "last-id"
        try:
            last = int(path.read_text())
        except FileNotFoundError:
            last = 0
        except ValueError as error:
            raise DriverError(
                f"{path} does not hold a number", hint="write the highest id in use there"
            ) from error
        write_whole(path, f"{last + 1}\n".encode())
        return last + 1

    def save(self, record: Record) -> None:
        """Write a record; it is on disk when this returns."""
        directory = self._domains / str(record.uuid)
        if not directory.exists():
            directory.mkdir(mode=0o700)
            sync_directory(self._domains)
        write_whole(directory / "record.sxp", _text(record).encode())

    def remove(self, uuid: UUID) -> None:
        """Forget a domain. Idempotent."""
        shutil.rmtree(self._domains / str(uuid), ignore_errors=True)
        sync_directory(self._domains)

    def load(self) -> Iterator[Record]:
        """All records. Raises DriverError for one that cannot be read: a domain must not be overlooked."""
        for path in sorted(self._domains.glob("*/record.sxp")):
            try:
                yield _record(path)
            except (ConfigError, ValueError, KeyError, OSError) as error:
                raise DriverError(
                    f"cannot read {path}: {error}",
                    hint="see whether the domain runs ('xl list'), end it, and remove the directory",
                ) from error


def _text(record: Record) -> str:
    fields = (
        _HEAD,
        ("version", _VERSION),
        ("id", str(record.id)),
        ("role", record.role.value),
        ("domid", str(record.domid)),
        ("was-paused", "yes" if record.was_paused else "no"),
        ("config", to_sxp(record.config)),
    )
    return dumps(fields) + "\n"


def _record(path: Path) -> Record:
    head, *fields = _list(parse_one(path.read_text(), source=str(path)))
    found = {str(name): values for name, *values in map(_list, fields)}
    if head != _HEAD or found["version"] != [_VERSION]:
        raise ValueError("this is no record of a version known here")
    (config,), (number,), (role,), (domid,) = (found[key] for key in ("config", "id", "role", "domid"))
    return Record(
        config=from_sxp(config, source=str(path)),
        id=int(str(number)),
        role=Role(str(role)),
        domid=int(str(domid)),
        was_paused=found["was-paused"] == ["yes"],
    )


def _list(node: Node) -> SList:
    if not isinstance(node, SList):
        raise ValueError(f"'{node}' stands where a list is expected")
    return node
