"""Secrets at rest: tokens and codes of letters, recovery codes, and the sealed secrets of second factors. Pure.

What is stored cannot be presented: digests of random values of at least 80 bits, or AES-GCM under a key that follows
from the secret of the settings. The token of a letter follows from the id of the event that asked for the letter, so
that a letter which is sent again holds the same one, and neither outbox nor table holds it.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import os
from functools import lru_cache
from uuid import UUID

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from modules.auth.tokens import base64url, derive_key
from server.settings import Settings

LETTER_INFO = b"lectern letter token v1"
CODE_INFO = b"lectern letter code v1"
TOTP_INFO = b"lectern totp secret v1"
NONCE_LENGTH = 12  # bytes (NIST SP 800-38D section 8.2)
RECOVERY_CODES = 10
RECOVERY_LENGTH = 10  # bytes: 80 bits need no slow hash
CODE_DIGITS = 6


def letter_token(settings: Settings, letter_id: UUID) -> str:
    """The token of a letter: always the same one for an id."""
    return base64url(hmac.digest(_key(settings.secret, LETTER_INFO), letter_id.bytes, "sha256"))


def letter_code(settings: Settings, letter_id: UUID) -> str:
    """The short code of a letter, for people who read it on another device."""
    return _code(settings.secret, letter_id)


def is_code_of(settings: Settings, letter_id: UUID, code: str) -> bool:
    """Tell whether a code is that of a letter, also when it was sent before the secret changed."""
    made = (_code(secret, letter_id) for secret in (settings.secret, *settings.previous_secrets))
    return any(hmac.compare_digest(known.encode(), code.encode()) for known in made)


def digest(token: str) -> bytes:
    """What is stored of a token."""
    return hashlib.sha256(token.encode()).digest()


def seal(settings: Settings, secret: bytes, owner: UUID) -> bytes:
    """Encrypt a secret for the row of its owner; in another row it cannot be read."""
    nonce = os.urandom(NONCE_LENGTH)
    return nonce + AESGCM(_key(settings.secret, TOTP_INFO)).encrypt(nonce, secret, owner.bytes)


def unseal(settings: Settings, sealed: bytes, owner: UUID) -> tuple[bytes, bool] | None:
    """Decrypt; also tell whether it was sealed with the present secret. None when no secret of ours fits."""
    nonce, rest = sealed[:NONCE_LENGTH], sealed[NONCE_LENGTH:]
    for number, secret in enumerate((settings.secret, *settings.previous_secrets)):
        try:
            return AESGCM(_key(secret, TOTP_INFO)).decrypt(nonce, rest, owner.bytes), number == 0
        except InvalidTag:
            continue
    return None


def new_recovery_codes() -> tuple[str, ...]:
    """Codes as people write them down: `abcd-efgh-ijkl-mnop`."""
    return tuple(_readable(os.urandom(RECOVERY_LENGTH)) for _ in range(RECOVERY_CODES))


def recovery_digest(owner: UUID, code: str) -> bytes:
    """What is stored of a recovery code, however it is written."""
    plain = "".join(filter(str.isalnum, code)).lower()
    return hashlib.sha256(owner.bytes + plain.encode()).digest()


def _readable(raw: bytes) -> str:
    text = base64.b32encode(raw).decode().lower()
    return "-".join(text[start : start + 4] for start in range(0, len(text), 4))


def _code(secret: str, letter_id: UUID) -> str:
    number = int.from_bytes(hmac.digest(_key(secret, CODE_INFO), letter_id.bytes, "sha256")[:8])
    return f"{number % 10**CODE_DIGITS:0{CODE_DIGITS}d}"


@lru_cache(maxsize=32)
def _key(secret: str, info: bytes) -> bytes:
    return derive_key(secret, info)
