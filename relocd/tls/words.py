"""What OpenSSL's errors mean, for people: which of the two hosts has which certificate to repair."""

from __future__ import annotations

import ssl
from collections.abc import Mapping
from typing import Final

from relocd.errors import Untrusted

#: X509_V_ERR_* of <openssl/x509_vfy.h>.
_OTHER_AUTHORITY: Final = frozenset({2, 7, 18, 19, 20, 21})
_NOT_YET_VALID: Final = 9
_EXPIRED: Final = 10

#: Ends of the names that OpenSSL gives to the alerts of RFC 8446, 6.2, and what the peer means by them.
_ALERTS: Final[Mapping[str, str]] = {
    "CERTIFICATE_EXPIRED": "it has expired",
    "UNKNOWN_CA": "it comes from another authority",
    "DECRYPT_ERROR": "it comes from another authority",
    "BAD_CERTIFICATE": "it is not valid there",
    "CERTIFICATE_UNKNOWN": "it is not valid there",
    "UNSUPPORTED_CERTIFICATE": "it is not meant for this use",
    "CERTIFICATE_REQUIRED": "there is none",
}
_PLAIN: Final = frozenset({"WRONG_VERSION_NUMBER", "HTTP_REQUEST", "RECORD_LAYER_FAILURE"})

RENEW: Final = (
    "'relocctl tls issue {host}' on the host of the authority makes a new one, 'relocctl tls install' on {host} "
    "takes it."
)


class SpeaksPlain(Untrusted):
    """The peer answered, but not in TLS."""


def explain(error: ssl.SSLError, peer: str) -> Untrusted:
    """The error of a handshake with ``peer`` as one that says which side has to do what."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return _unverified(error, peer)
    reason = getattr(error, "reason", None) or ""  # set by OpenSSL's errors only
    for alert, meaning in _ALERTS.items():
        if "ALERT" in reason and reason.endswith(alert):
            return Untrusted(
                f"{peer} does not accept the certificate of this host: {meaning}",
                hint=RENEW.format(host="this host"),
            )
    if reason == "PEER_DID_NOT_RETURN_A_CERTIFICATE":
        return Untrusted(f"{peer} showed no certificate", hint=RENEW.format(host=peer))
    if reason in _PLAIN:
        return SpeaksPlain(
            f"{peer} does not speak TLS",
            hint=f"Give it a certificate: {RENEW.format(host=peer)} Or set xen-relocation-tls to prefer here.",
        )
    if "PROTOCOL_VERSION" in reason or reason == "UNSUPPORTED_PROTOCOL":
        return Untrusted(f"{peer} does not speak TLS 1.3", hint=f"Upgrade relocd and OpenSSL on {peer}.")
    words = reason.replace("_", " ").lower() or str(error)
    return Untrusted(f"TLS with {peer} failed: {words}", hint="The log of either host may say more.")


def _unverified(error: ssl.SSLCertVerificationError, peer: str) -> Untrusted:
    if error.verify_code == _EXPIRED:
        why = "has expired"
    elif error.verify_code == _NOT_YET_VALID:
        return Untrusted(
            f"the certificate of {peer} is not valid yet", hint="Compare the clocks of both hosts."
        )
    elif error.verify_code in _OTHER_AUTHORITY:
        why = "comes from another authority than the one of this host"
    else:
        why = f"is not valid: {error.verify_message}"
    return Untrusted(f"the certificate of {peer} {why}", hint=RENEW.format(host=peer))
