"""Passwords: argon2id with the parameters of the settings and one lane. Pure and slow: called only through `rt.cpu`.

OWASP, Password Storage Cheat Sheet: m = 19 MiB, t = 2, p = 1 is the default. More lanes would only take threads from
other logins.
"""

from __future__ import annotations

import base64
import unicodedata
from functools import lru_cache

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError

from server.settings import Auth

LANES = 1


def hash_password(settings: Auth, password: str) -> str:
    """Hash a password for storing, e.g. `$argon2id$v=19$m=19456,t=2,p=1$…$…`."""
    return _hasher(settings.argon2_time_cost, settings.argon2_memory_kib).hash(_normal(password))


def verify_password(settings: Auth, stored: str | None, password: str) -> tuple[bool, str | None]:
    """Tell whether a password is right, and give a new hash when it is and the parameters have changed since.

    Without a stored hash the same work is done for nothing, so that the time does not tell whether there is an account.
    """
    hasher = _hasher(settings.argon2_time_cost, settings.argon2_memory_kib)
    try:
        hasher.verify(stored or _unmatchable(hasher), _normal(password))
    except (VerificationError, InvalidHashError):
        return False, None
    if stored is None:
        return False, None
    return True, hash_password(settings, password) if hasher.check_needs_rehash(stored) else None


def _normal(password: str) -> str:
    """NFC (RFC 8265 section 4.2.2): keyboards of different systems compose the same letter differently."""
    return unicodedata.normalize("NFC", password)


@lru_cache(maxsize=8)
def _hasher(time_cost: int, memory_kib: int) -> PasswordHasher:
    return PasswordHasher(time_cost=time_cost, memory_cost=memory_kib, parallelism=LANES)


def _unmatchable(hasher: PasswordHasher) -> str:
    """A hash of nothing anybody knows, of the same cost as a real one."""
    salt, digest = (base64.b64encode(bytes(size)).rstrip(b"=").decode() for size in (hasher.salt_len, hasher.hash_len))
    return f"$argon2id$v=19$m={hasher.memory_cost},t={hasher.time_cost},p={LANES}${salt}${digest}"
