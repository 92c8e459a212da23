"""Passwords of the people at hand: hashed and checked in the threads of `rt.cpu`, while no connection is held."""

from __future__ import annotations

from collections.abc import Iterable

from modules.auth import passwords, store
from modules.auth.errors import InvalidCredentials
from modules.auth.records import Credentials
from server.actor import Actor
from server.runtime import Runtime
from server.settings import Auth


async def hash_password(rt: Runtime, password: str) -> str:
    """Hash a password for storing.

    Raises:
        Unavailable: too many wait already.
    """
    return await rt.cpu.run(passwords.hash_password, rt.settings.auth, password)


async def hash_new_password(rt: Runtime, password: str, *, about: Iterable[str] = (), field: str = "password") -> str:
    """Check that a new password is hard to guess, and hash it. `about` are words that belong to its owner.

    Raises:
        WeakPassword: it can be guessed; `field` is the name under which it came.
        Unavailable: too many wait already.
    """
    return await rt.cpu.run(_judge_and_hash, rt.settings.auth, password, tuple(about), field)


async def check_own_password(rt: Runtime, actor: Actor, password: str, *, ip: str) -> Credentials:
    """Make sure that the actor knows the password of the account.

    Raises:
        InvalidCredentials: they do not.
        RateLimited: too many were wrong lately.
        Unavailable: too many passwords wait to be checked.
    """
    async with rt.limits.guess("login", ip, str(actor.user_id), wrong=InvalidCredentials):
        async with rt.database.connection() as conn:
            found = await store.find_credentials_of(conn, actor.user_id)
        stored = found.password_hash if found else None
        right, _ = await rt.cpu.run(passwords.verify_password, rt.settings.auth, stored, password)
        if found is None or not right:
            raise InvalidCredentials("The password is wrong.")
        return found


def _judge_and_hash(settings: Auth, password: str, about: tuple[str, ...], field: str) -> str:
    passwords.judge_password(settings, password, about=about, field=field)
    return passwords.hash_password(settings, password)
