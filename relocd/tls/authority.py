"""Makes certificates: the authority's own, those of hosts, and the short-lived ones of lanes."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address

from attrs import frozen
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

AUTHORITY_DAYS = 3650
HOST_DAYS = 365
CLOCK_SKEW = timedelta(hours=1)
"""A certificate holds from a little before it was made: the clocks of hosts differ."""

_ALWAYS = datetime(2000, 1, 1, tzinfo=UTC), datetime(9999, 12, 31, 23, 59, 59, tzinfo=UTC)
_HOST_USES = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH])


@frozen
class Pair:
    """A certificate and its private key, both as PEM."""

    certificate: str
    key: str = ""

    def der(self) -> bytes:
        """The certificate alone, in binary form."""
        return x509.load_pem_x509_certificate(self.certificate.encode()).public_bytes(
            serialization.Encoding.DER
        )


def new_authority(now: datetime | None = None) -> Pair:
    """An authority. Its name has a random part, so that two authorities can be told apart."""
    key = ec.generate_private_key(ec.SECP384R1())
    serial = x509.random_serial_number()
    name = _name(f"relocd authority {serial & 0xFFFFFFFF:08x}")
    began = now or datetime.now(UTC)
    identifier = x509.SubjectKeyIdentifier.from_public_key(key.public_key())
    builder = (
        _builder(name, name, key.public_key(), began, AUTHORITY_DAYS)
        .serial_number(serial)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage(signs=False, certifies=True), critical=True)
        .add_extension(identifier, critical=False)
    )
    return _pair(builder.sign(key, hashes.SHA384()), key)


def issue(
    authority: Pair, holders: Sequence[str], *, days: int = HOST_DAYS, now: datetime | None = None
) -> Pair:
    """A host's certificate for these names and addresses, the first of which is its subject. Raises ValueError."""
    issuer = x509.load_pem_x509_certificate(authority.certificate.encode())
    issuer_key = serialization.load_pem_private_key(authority.key.encode(), None)
    if not isinstance(issuer_key, ec.EllipticCurvePrivateKey):
        raise ValueError("the authority's key is of another kind than relocctl makes")
    key = ec.generate_private_key(ec.SECP256R1())
    public = key.public_key()
    builder = (
        _builder(_name(holders[0]), issuer.subject, public, now or datetime.now(UTC), days)
        .serial_number(x509.random_serial_number())
        .add_extension(x509.SubjectAlternativeName([_holder(text) for text in holders]), critical=False)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(signs=True, certifies=False), critical=True)
        .add_extension(_HOST_USES, critical=False)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(public), critical=False)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer_key.public_key()), critical=False
        )
    )
    return _pair(builder.sign(issuer_key, hashes.SHA384()), key)


def new_lane_pair() -> Pair:
    """A key for the lanes of one relocation, signed by itself: who it belongs to is said in the dialogue.

    It has no end of its own (RFC 5280, 4.1.2.5): it is gone with the relocation, and clocks do not matter.
    """
    key = ec.generate_private_key(ec.SECP256R1())
    name = _name("lane")
    builder = (
        x509.CertificateBuilder(name, name, key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(_ALWAYS[0])
        .not_valid_after(_ALWAYS[1])
    )
    return _pair(builder.sign(key, hashes.SHA256()), key)


def _builder(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePublicKey, began: datetime, days: int
) -> x509.CertificateBuilder:
    builder = x509.CertificateBuilder(issuer, subject, key)
    return builder.not_valid_before(began - CLOCK_SKEW).not_valid_after(began + timedelta(days=days))


def _name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text[:64])])


def _holder(text: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ip_address(text))
    except ValueError:
        return x509.DNSName(text)


def _usage(*, signs: bool, certifies: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=signs,
        key_cert_sign=certifies,
        crl_sign=certifies,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _pair(certificate: x509.Certificate, key: ec.EllipticCurvePrivateKey) -> Pair:
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    return Pair(certificate.public_bytes(serialization.Encoding.PEM).decode(), private.decode())
