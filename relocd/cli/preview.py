"""What a domain file means, found out here: nothing is asked of relocd and nothing is started."""

from __future__ import annotations

import secrets
from uuid import uuid4

from attrs import frozen

from relocd.cli.domainfile import DomainFile
from relocd.domain.devices import xen_mac
from relocd.domain.file import parse_domain_file
from relocd.domain.record import to_sxp
from relocd.sxp import Value


@frozen
class Preview:
    """The record of the domain as ``create`` would make it, and what is odd in its file.

    A UUID or MAC that the file leaves open is made up here; ``create`` makes another one.
    """

    record: Value
    warnings: tuple[str, ...]


def preview(file: DomainFile, settings: dict[str, str]) -> Preview:
    """Read a domain file as relocd would. Raises ConfigError."""
    parsed = parse_domain_file(
        file.text,
        source=file.source,
        overrides=settings,
        new_uuid=uuid4,
        new_mac=lambda: xen_mac(secrets.token_bytes(3)),
    )
    return Preview(to_sxp(parsed.config), parsed.warnings)
