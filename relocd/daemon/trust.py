"""Whom this host trusts, and what it shows of itself: the certificate in use, and the judgement of a peer's."""

from __future__ import annotations

import ssl
from pathlib import Path

from attrs import frozen
from twisted.logger import Logger

from relocd.config import Config
from relocd.config.model import TlsMode
from relocd.daemon.lookup import Resolver
from relocd.errors import ConfigError, Untrusted
from relocd.tls import words
from relocd.tls.certificate import Certificate, describe, read_der, read_pem
from relocd.tls.channel import make_context

#: What a peer that comes without TLS is told, and one that comes with it while there is none here.
PLAIN_REFUSED = Untrusted(
    "this host takes relocations over TLS only",
    hint="Install a certificate on the source ('relocctl tls install'); its xen-relocation-tls must not be off.",
)
NO_TLS_HERE = Untrusted(
    "this host does not speak TLS",
    hint="Install a certificate here ('relocctl tls install'); xen-relocation-tls must not be off.",
)


@frozen
class Credentials:
    """What is read from the three files: a context for either side, and what our own certificate says."""

    server: ssl.SSLContext
    client: ssl.SSLContext
    own: Certificate


class Trust:
    """The daemon's side of TLS. ``credentials`` is None while nothing is installed or TLS is off."""

    log = Logger()

    def __init__(self, config: Config, resolver: Resolver) -> None:
        self._resolver = resolver
        self.mode = config.tls
        self.credentials = load_credentials(config)

    def reload(self, mode: TlsMode, credentials: Credentials | None) -> None:
        """Use these from now on; connections that are established stay."""
        self.mode, self.credentials = mode, credentials

    @property
    def required(self) -> bool:
        """Is plain talk out of the question?"""
        return self.mode is TlsMode.REQUIRE

    def describe(self) -> str:
        """For ``relocctl info``: the mode, and until when our certificate holds."""
        if self.credentials is None:
            return "off" if self.mode is TlsMode.OFF else f"{self.mode.value}; no certificate is installed"
        own = self.credentials.own
        said = own.warning() or f"certificate of {own.holders}, until {own.not_after:%Y-%m-%d}"
        return f"{self.mode.value}; {said}"

    def warn(self) -> None:
        """Say in the log that our own certificate ends soon."""
        if self.credentials is not None and (warning := self.credentials.own.warning()):
            self.log.warn("{warning}: {hint}", warning=warning, hint=words.RENEW.format(host="this host"))

    async def judge(self, certificate: bytes, address: str, called: str = "") -> Certificate:
        """Does a verified certificate belong to the peer at ``address``, ``called`` so by an operator?

        A name that was called must be in it; an address may also be confirmed by a name. Raises Untrusted.
        """
        try:
            shown = read_der(certificate)
        except ValueError as error:
            raise Untrusted(f"the certificate of {called or address} cannot be read: {error}") from error
        if shown.is_for(called or address):
            return shown
        if not called or called == address:
            names = await self._resolver.confirmed_names(address)
            if any(shown.is_for(name) for name in names):
                return shown
        raise Untrusted(
            f"the certificate that {called or address} showed is for {shown.holders}, not for {called or address}",
            hint=f"'relocctl tls issue HOST --san {called or address}' makes one that names it.",
        )


def load_credentials(config: Config) -> Credentials | None:
    """Read the three files. None if TLS is off, or only preferred and not installed. Raises ConfigError."""
    if config.tls is TlsMode.OFF:
        return None
    ca, certificate, key = (Path(p) for p in (config.tls_ca, config.tls_certificate, config.tls_key))
    missing = [path for path in (ca, certificate, key) if not _exists(path)]
    if len(missing) == 3 and config.tls is TlsMode.PREFER:
        return None
    if missing:
        raise ConfigError(
            f"xen-relocation-tls is {config.tls.value}, and this file is missing",
            source=str(missing[0]),
            hint="'relocctl tls install BUNDLE' puts the three files in place; docs/tls.md says where it comes from.",
        )
    return Credentials(
        make_context(ca, certificate, key, server_side=True),
        make_context(ca, certificate, key, server_side=False),
        _own(certificate),
    )


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except OSError as error:
        raise ConfigError(f"cannot be looked at: {error.strerror}", source=str(path)) from error


def _own(path: Path) -> Certificate:
    return describe(read_pem(path.read_text("utf-8", "replace"), str(path)))
