"""Tokens: what a login gives out, made from the secrets of the settings: all replicas agree and no token is stored.

An access token is a JWT (RFC 9068) signed with Ed25519. A refresh token is `<session>.<generation>.<MAC>`, where the
MAC covers the salt of the session's row. This file knows keys and formats; whether a session still lives is decided
in authentication.py and service.py. Older secrets verify and never sign.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import re
from collections import OrderedDict
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal
from uuid import UUID

import jwt
import msgspec
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from server.errors import SessionExpired, Unauthenticated
from server.settings import Settings

ALGORITHM = "EdDSA"
ACCESS_INFO = b"lectern access token v1"
REFRESH_INFO = b"lectern refresh token v1"
TOKEN_LENGTH = 4096  # characters; ours have about 500
LEEWAY = 5  # seconds that the clocks of two replicas may differ
SALT_LENGTH = 16  # bytes
REMEMBERED_TOKENS = 10_000  # verified ones; a signature costs 0.1 ms of the loop

_REFRESH_TOKEN = re.compile(r"([0-9a-f]{32})\.([1-9][0-9]{0,9})\.([A-Za-z0-9_-]{43})")


class Claims(msgspec.Struct, frozen=True):
    """What an access token says. Every claim is required; times are whole seconds since 1970."""

    iss: str
    aud: str
    sub: UUID  # the user
    sid: UUID  # the login session
    jti: str
    iat: int
    exp: int
    typ: Literal["access"]


@dataclass(frozen=True, slots=True)
class RefreshToken:
    """A refresh token, taken apart; not yet verified."""

    session_id: UUID
    generation: int
    mac: str


class Keyring:
    """The keys that follow from the secrets; made once for each set of them (`keyring`)."""

    def __init__(self, secrets: tuple[str, ...], issuer: str, access_token_seconds: int) -> None:
        self._issuer = issuer
        self._lifetime = access_token_seconds
        keys = [Ed25519PrivateKey.from_private_bytes(derive_key(secret, ACCESS_INFO)) for secret in secrets]
        self._signer = keys[0]
        self.public_keys: dict[str, Ed25519PublicKey] = {_key_id(key.public_key()): key.public_key() for key in keys}
        # A token names its key by its whole first segment, which is ours letter for letter or refused: `alg`, `jku` or
        # `crit` of a stranger are never even parsed, and neither is JSON that is too deep for a parser.
        self._by_header = {_header_segment(key): key.public_key() for key in keys}
        self._mac_keys = [derive_key(secret, REFRESH_INFO) for secret in secrets]
        # Facts of mathematics about tokens, no decisions: time and session are looked at on every use.
        self._verified: OrderedDict[bytes, Claims] = OrderedDict()

    def sign(self, *, user_id: UUID, session_id: UUID, token_id: UUID, now: float) -> str:
        """Make an access token that lives for `access_token_seconds` from `now` (Unix time)."""
        issued = int(now)
        claims = {
            "iss": self._issuer,
            "aud": self._issuer,
            "sub": str(user_id),
            "sid": str(session_id),
            "jti": token_id.hex,
            "iat": issued,
            "exp": issued + self._lifetime,
            "typ": "access",
        }
        return jwt.encode(claims, self._signer, algorithm=ALGORITHM, headers=_header(self._signer))

    def verify(self, token: str, *, now: float) -> Claims:
        """Read an access token that one of our keys has signed and that is valid at `now` (Unix time).

        Raises:
            SessionExpired: it was valid once.
            Unauthenticated: it is anything else.
        """
        if len(token) > TOKEN_LENGTH or not token.isascii():
            raise Unauthenticated
        digest = hashlib.sha256(token.encode()).digest()
        claims = self._verified.get(digest)
        if claims is None:
            claims = self._verified[digest] = self._decode(token)
        self._verified.move_to_end(digest)
        if len(self._verified) > REMEMBERED_TOKENS:
            self._verified.popitem(last=False)
        if claims.iat > now + LEEWAY:
            raise Unauthenticated
        if claims.exp <= now:
            raise SessionExpired
        return claims

    def refresh_token(self, session_id: UUID, generation: int, salt: bytes) -> str:
        """The refresh token of a generation of a session: always the same one."""
        return f"{session_id.hex}.{generation}.{_mac(self._mac_keys[0], session_id, generation, salt)}"

    def is_genuine(self, token: RefreshToken, salt: bytes) -> bool:
        """Tell whether we made this token for the session with this salt."""
        expected = (_mac(key, token.session_id, token.generation, salt) for key in self._mac_keys)
        return any(hmac.compare_digest(mac, token.mac) for mac in expected)

    def _decode(self, token: str) -> Claims:
        """Check the signature and the claims, times relative to each other included.

        The clock is left to `verify`: PyJWT would ask the system's, not `rt.clock`.
        """
        key = self._by_header.get(token.partition(".")[0])
        if key is None:
            raise Unauthenticated
        try:
            found = jwt.decode(
                token,
                key,
                algorithms=[ALGORITHM],
                audience=self._issuer,
                issuer=self._issuer,
                options={
                    "require": list(Claims.__struct_fields__),
                    "verify_exp": False,
                    "verify_iat": False,
                    "strict_aud": True,
                    "enforce_minimum_key_length": True,
                },
            )
            claims = msgspec.convert(found, Claims)
        except (jwt.InvalidTokenError, msgspec.ValidationError) as error:
            raise Unauthenticated from error
        if not 0 < claims.exp - claims.iat <= self._lifetime + LEEWAY:
            raise Unauthenticated
        return claims


def keyring(settings: Settings) -> Keyring:
    """The keys of these settings, with what they have verified so far."""
    secrets = (settings.secret, *settings.previous_secrets)
    return _keyring(secrets, settings.auth.issuer, settings.auth.access_token_seconds)


def parse_refresh_token(token: str) -> RefreshToken:
    """Take a refresh token apart.

    Raises:
        Unauthenticated: it does not look like one.
    """
    match = _REFRESH_TOKEN.fullmatch(token)
    if match is None:
        raise Unauthenticated
    return RefreshToken(UUID(hex=match[1]), int(match[2]), match[3])


def base64url(raw: bytes) -> str:
    """Base64 for URLs without padding (RFC 7515 section 2)."""
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def derive_key(secret: str, info: bytes) -> bytes:
    """A key of 32 bytes for one purpose (RFC 5869); the secret is random, so no salt is needed."""
    return HKDF(algorithm=hashes.SHA256(), length=32, salt=None, info=info).derive(secret.encode())


@lru_cache(maxsize=4)  # one in a server; tests have several
def _keyring(secrets: tuple[str, ...], issuer: str, access_token_seconds: int) -> Keyring:
    return Keyring(secrets, issuer, access_token_seconds)


def _mac(key: bytes, session_id: UUID, generation: int, salt: bytes) -> str:
    message = session_id.bytes + salt + generation.to_bytes(8)
    return base64url(hmac.digest(key, message, "sha256"))


def _key_id(key: Ed25519PublicKey) -> str:
    return base64url(hashlib.sha256(key.public_bytes_raw()).digest()[:12])


def _header(key: Ed25519PrivateKey) -> dict[str, str]:
    return {"typ": "at+jwt", "kid": _key_id(key.public_key())}  # RFC 9068 section 2.1


def _header_segment(key: Ed25519PrivateKey) -> str:
    return jwt.encode({}, key, algorithm=ALGORITHM, headers=_header(key)).partition(".")[0]
