"""A dialogue with a peer, over TLS if that is possible or must be."""

from __future__ import annotations

from relocd.daemon.connect import Peer, connect
from relocd.daemon.context import Context
from relocd.daemon.dialogue import Dialogue
from relocd.daemon.trust import NO_TLS_HERE, Credentials
from relocd.errors import Untrusted
from relocd.tls.channel import Channel
from relocd.tls.words import SpeaksPlain


async def call(context: Context, peer: Peer, *, secure: bool = False) -> Dialogue:
    """Connect, and know by certificate who answers. Raises PeerUnreachable or Untrusted; no connection is left then.

    A peer that has no TLS is spoken to in plain, unless TLS is required here, or ``secure`` now.
    """
    timeout_s = context.config.connect_timeout_s
    credentials = context.trust.credentials
    if secure and credentials is None:
        raise Untrusted(str(NO_TLS_HERE), hint=NO_TLS_HERE.hint)
    if credentials is not None:
        try:
            return await _call_securely(context, credentials, peer, timeout_s)
        except SpeaksPlain:
            if secure or context.trust.required:
                raise
    return await connect(context.reactor, peer, timeout_s)


async def _call_securely(
    context: Context, credentials: Credentials, peer: Peer, timeout_s: float
) -> Dialogue:
    dialogue = await connect(context.reactor, peer, timeout_s)
    try:
        channel = Channel(credentials.client, server_side=False)
        await dialogue.secure(channel, timeout_s)
        await context.trust.judge(channel.peer_certificate(), dialogue.peer, peer.host)
    except BaseException:
        dialogue.close()
        raise
    return dialogue


def require_lane_certificate(dialogue: Dialogue, shown: str) -> bytes:
    """The certificate that the peer's lanes will show: there must be one exactly if the dialogue is over TLS.

    Empty without TLS. Raises Untrusted.
    """
    if bool(shown) != (dialogue.channel is not None):
        raise Untrusted(
            f"{dialogue.peer} wants its lanes to be {'encrypted' if shown else 'plain'}, and the dialogue is not",
            hint="Both hosts must run a relocd that knows TLS, with the same setting of xen-relocation-tls.",
        )
    return bytes.fromhex(shown)
