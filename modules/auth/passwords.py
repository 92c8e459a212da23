"""Passwords: which are good enough, and argon2id with the parameters of the settings and one lane.

Pure and slow: called only through `rt.cpu`. OWASP, Password Storage Cheat Sheet: m = 19 MiB, t = 2, p = 1 is the
default. More lanes would only take threads from other logins.
"""

from __future__ import annotations

import base64
import unicodedata
from collections.abc import Iterable
from functools import lru_cache

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError
from zxcvbn import zxcvbn
from zxcvbn.frequency_lists import FREQUENCY_LISTS

from modules.auth.errors import WeakPassword
from server.errors import FieldError
from server.settings import Auth

LANES = 1
# The 30,000 passwords that leaked most often, as zxcvbn carries them, and what people think of before our own form.
COMMON = frozenset(FREQUENCY_LISTS["passwords"]) | {"lectern123", "classroom", "classroom1", "elearning", "e-learning"}
# zxcvbn takes 1 ms for most passwords and a second for 72 characters of leetspeak, so it sees this much of each end.
JUDGED_LENGTH = 20  # characters: at most 25 ms
_DECORATION = "0123456789!?.,;:*#$%&+-_ "  # what people add to a common password to please a form


def judge_password(settings: Auth, password: str, *, about: Iterable[str] = (), field: str = "password") -> None:
    """Refuse a new password that is on the list of common ones, or that a guesser finds too soon.

    `about` are words that a guesser would try for this person, e.g. the name.

    Raises:
        WeakPassword: it is.
    """
    words = [part for word in about for part in {word, *word.replace("@", " ").replace(".", " ").split()}]
    plain = _normal(password).casefold()
    if COMMON & {plain, plain.strip(_DECORATION)}:
        raise _weak(field, "Many people use this password, and so it is among the first to be tried.")
    ends = dict.fromkeys((plain_end(password), plain_end(password[::-1])[::-1]))
    found = [zxcvbn(end, user_inputs=words) for end in ends]
    best = max(found, key=lambda judged: int(judged["score"]))
    if best["score"] < settings.password_min_score:
        raise _weak(field, best["feedback"]["warning"] or "This password is easy to guess.")


def plain_end(password: str) -> str:
    """The part of a password that is judged."""
    return _normal(password)[:JUDGED_LENGTH]


def _weak(field: str, reason: str) -> WeakPassword:
    advice = "Take several words that do not belong together."
    return WeakPassword(errors=[FieldError((field,), f"{reason.rstrip('.')}. {advice}")])


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
