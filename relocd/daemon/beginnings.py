"""The journal's records of relocations that are about to begin."""

from __future__ import annotations

import secrets
import time
from uuid import uuid4

from relocd.daemon.connect import Peer
from relocd.handover.record import Mark, Record, Role
from relocd.model import DomainConfig
from relocd.wire.messages import Propose


def outgoing(domain: DomainConfig, peer: Peer, *, live: bool, was_paused: bool) -> Record:
    """A domain is to leave. Its token and the peer's address become known when it is accepted."""
    return Record(
        relocation=uuid4(),
        role=Role.SOURCE,
        domain=domain,
        live=live,
        peer_host=peer.host,
        peer_port=peer.port,
        token="",
        was_paused=was_paused,
        mark=Mark.BEGUN,
        began_s=time.time(),
    )


def incoming(proposal: Propose, peer: Peer, *, secure: bool) -> Record:
    """A proposal is about to be accepted, with a fresh token; ``peer`` answers questions later.

    ``secure``: it came over TLS.
    """
    return Record(
        relocation=proposal.relocation,
        role=Role.TARGET,
        domain=proposal.domain,
        live=proposal.live,
        peer_host=peer.host,
        peer_port=peer.port,
        token=secrets.token_hex(16),
        was_paused=proposal.paused,
        mark=Mark.BEGUN,
        began_s=time.time(),
        secure=secure,
    )
