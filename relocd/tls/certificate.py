"""What a host's certificate says: whose it is, until when it holds, who issued it."""

from __future__ import annotations

from datetime import UTC, datetime
from ipaddress import ip_address

from attrs import frozen
from cryptography import x509

from relocd.errors import ConfigError

WARN_DAYS = 30
"""From so many days before its end a certificate is warned about."""

_DAY_S = 86400.0
_UNREADABLE = (x509.InvalidVersion, x509.DuplicateExtension, x509.UnsupportedGeneralNameType)


@frozen
class Certificate:
    """The parts of an X.509 certificate that matter here. ``names`` are in lower case, ``addresses`` canonical."""

    subject: str
    issuer: str
    names: tuple[str, ...]
    addresses: tuple[str, ...]
    not_before: datetime
    not_after: datetime

    def is_for(self, host: str) -> bool:
        """Does it name this host (a name or an address)? Without wildcards: a host's key is one host's."""
        address = _canonical(host)
        if address is not None:
            return address in self.addresses
        return host.lower().rstrip(".") in self.names

    @property
    def holders(self) -> str:
        """All that it names, for a message."""
        return ", ".join((*self.names, *self.addresses)) or "nobody"

    def days_left(self, now: datetime | None = None) -> float:
        """Days until it expires, negative afterwards."""
        return (self.not_after - (now or datetime.now(UTC))).total_seconds() / _DAY_S

    def warning(self, now: datetime | None = None) -> str:
        """A sentence about its end if that is near or past, else nothing."""
        left = self.days_left(now)
        if left < 0:
            return f"the certificate of this host has expired on {self.not_after:%Y-%m-%d}"
        if left < WARN_DAYS:
            return f"the certificate of this host expires on {self.not_after:%Y-%m-%d}, in {int(left)} days"
        return ""


def read_der(data: bytes) -> Certificate:
    """Read one certificate. Raises ValueError if it is none."""
    try:
        return describe(x509.load_der_x509_certificate(data))
    except _UNREADABLE as error:
        raise ValueError(str(error)) from error


def read_pem(text: str, source: str) -> x509.Certificate:
    """Parse the first certificate in a PEM text. Raises ConfigError that names ``source``."""
    try:
        return x509.load_pem_x509_certificate(text.encode())
    except ValueError as error:
        raise ConfigError(f"this is no certificate in PEM form ({error})", source=source) from error


def describe(certificate: x509.Certificate) -> Certificate:
    """What a certificate says. Raises ValueError for extensions that cannot be read."""
    names: tuple[str, ...] = ()
    addresses: tuple[str, ...] = ()
    try:
        san = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        pass
    else:
        names = tuple(name.lower().rstrip(".") for name in san.get_values_for_type(x509.DNSName))
        addresses = tuple(str(address) for address in san.get_values_for_type(x509.IPAddress))
    return Certificate(
        certificate.subject.rfc4514_string(),
        certificate.issuer.rfc4514_string(),
        names,
        addresses,
        certificate.not_valid_before_utc,
        certificate.not_valid_after_utc,
    )


def _canonical(host: str) -> str | None:
    try:
        return str(ip_address(host.partition("%")[0]))
    except ValueError:
        return None
