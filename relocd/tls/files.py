"""Certificates on disk: the authority's directory, the bundle that goes to a host, and a host's three files."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Final

from attrs import frozen
from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    PublicFormat,
    load_pem_private_key,
)

from relocd.errors import ConfigError, UsageError
from relocd.tls.authority import Pair
from relocd.tls.certificate import Certificate, describe, read_pem

AUTHORITY_DIRECTORY: Final = Path("/etc/relocd/ca")
HOST_DIRECTORY: Final = Path("/etc/relocd/tls")
"""Where the configuration's defaults look (relocd.config.model)."""

CA_FILE: Final = "ca.pem"
CA_KEY_FILE: Final = "ca.key"
CERTIFICATE_FILE: Final = "host.pem"
KEY_FILE: Final = "host.key"

_BUNDLE_BYTES_MAX: Final = 1 << 16
_BLOCK: Final = re.compile(r"-----BEGIN ([A-Z ]+)-----\n.+?-----END \1-----\n?", re.DOTALL)


@frozen
class Bundle:
    """What a host needs, as PEM: the authority's certificate, its own, and its key."""

    ca: str
    certificate: str
    key: str

    def to_text(self) -> str:
        """As it goes from the host of the authority to another one."""
        return self.key + self.certificate + self.ca


def save_authority(directory: Path, authority: Pair) -> None:
    """Put a new authority on disk. Raises UsageError if there is one already."""
    for name in (CA_FILE, CA_KEY_FILE):
        if (directory / name).exists():
            raise UsageError(
                f"{directory / name} exists: there is an authority already.",
                hint="Every host trusts the one that issued its certificate. Use it, or name another --directory.",
            )
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    _write(directory / CA_KEY_FILE, authority.key, 0o600)
    _write(directory / CA_FILE, authority.certificate, 0o644)


def load_authority(directory: Path) -> Pair:
    """Read an authority. Raises UsageError if there is none, ConfigError if its halves do not fit."""
    if not (directory / CA_KEY_FILE).exists():
        raise UsageError(
            f"There is no authority in {directory}.",
            hint="'relocctl tls init' makes one, once for all hosts; --directory names another place.",
        )
    authority = Pair(_read(directory / CA_FILE), _read(directory / CA_KEY_FILE))
    source = str(directory / CA_FILE)
    _check_key(read_pem(authority.certificate, source), authority.key, source)
    return authority


def save_bundle(path: Path, bundle: Bundle) -> None:
    """Write what goes to a host; only root may read it, for the key in it."""
    _write(path, bundle.to_text(), 0o600)


def load_bundle(path: Path) -> Bundle:
    """Read and check a bundle. Raises ConfigError that says what does not fit."""
    source = str(path)
    blocks = _BLOCK.finditer(_read(path))
    keys: list[str] = []
    certificates: list[str] = []
    for block in blocks:
        text = block.group().rstrip() + "\n"
        (keys if block.group(1).endswith("PRIVATE KEY") else certificates).append(text)
    if len(keys) != 1 or len(certificates) != 2:
        raise ConfigError(
            "this is no bundle: a private key, the host's certificate and the authority's are needed, in this order",
            source=source,
            hint="'relocctl tls issue HOST' makes one.",
        )
    bundle = Bundle(certificates[1], certificates[0], keys[0])
    check(bundle, source)
    return bundle


def check(bundle: Bundle, source: str) -> Certificate:
    """Do the three belong together? Raises ConfigError; returns what the certificate says."""
    own, ca = read_pem(bundle.certificate, source), read_pem(bundle.ca, source)
    _check_key(own, bundle.key, source)
    try:
        own.verify_directly_issued_by(ca)
    except (ValueError, TypeError, InvalidSignature) as error:
        raise ConfigError(
            "the host's certificate does not come from the authority beside it",
            source=source,
            hint="Issue it again there, with 'relocctl tls issue HOST'.",
        ) from error
    return describe(own)


def install(bundle: Bundle, directory: Path) -> None:
    """Put a host's three files in place. The daemon takes them when it is reloaded."""
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    _replace(directory / KEY_FILE, bundle.key, 0o600)
    _replace(directory / CERTIFICATE_FILE, bundle.certificate, 0o644)
    _replace(directory / CA_FILE, bundle.ca, 0o644)


def load_installed(directory: Path) -> Bundle:
    """What is in place on this host. Raises UsageError if nothing is."""
    if not (directory / CERTIFICATE_FILE).exists():
        raise UsageError(
            f"No certificate is installed in {directory}.",
            hint="'relocctl tls issue HOST' on the host of the authority makes a bundle for 'relocctl tls install'.",
        )
    names = (CA_FILE, CERTIFICATE_FILE, KEY_FILE)
    return Bundle(*(_read(directory / name) for name in names))


def _check_key(certificate: x509.Certificate, key: str, source: str) -> None:
    form = (Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    try:
        public = load_pem_private_key(key.encode(), None).public_key().public_bytes(*form)
    except (ValueError, TypeError) as error:
        raise ConfigError(f"the private key cannot be read: {error}", source=source) from error
    if public != certificate.public_key().public_bytes(*form):
        raise ConfigError("the private key does not belong to the certificate", source=source)


def _read(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return file.read(_BUNDLE_BYTES_MAX).decode("ascii", "replace")
    except OSError as error:
        raise ConfigError(f"cannot be read: {error.strerror}", source=str(path)) from error


def _write(path: Path, text: str, mode: int) -> None:
    """Create a file; one that exists is an error. Raises UsageError."""
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, mode)
    except FileExistsError:
        raise UsageError(f"{path} exists.", hint="Remove it, or name another file.") from None
    except OSError as error:
        raise UsageError(f"{path} cannot be written: {error.strerror}", hint="Are you root?") from error
    with open(descriptor, "w", encoding="ascii") as file:  # noqa: PTH123 - a descriptor has no path
        file.write(text)
        os.fchmod(descriptor, mode)
        file.flush()
        os.fsync(descriptor)


def _replace(path: Path, text: str, mode: int) -> None:
    new = path.with_name(f".{path.name}.new")
    new.unlink(missing_ok=True)
    _write(new, text, mode)
    new.replace(path)


def holders(host: str, more: Iterable[str], addresses: Iterable[str]) -> tuple[str, ...]:
    """Whom a certificate is for, the host first. Raises UsageError for what no host is called."""
    found = tuple(dict.fromkeys((host, *more, *addresses)))
    for name in found:
        if not _HOST.fullmatch(name):
            raise UsageError(
                f"'{name}' is neither a host name nor an address.",
                hint="Name each host by itself; there are no wildcards.",
            )
    return found


_HOST: Final = re.compile(r"[A-Za-z0-9]([A-Za-z0-9.-]{0,251}[A-Za-z0-9])?|[0-9A-Fa-f:.]{2,45}")
