"""What letters are for: verifying an address, setting a new password without the old one, changing the address.

Asking never tells whether an address has an account. A token works once, for one purpose, for a while, and only as long
as the account still has the address to which the letter went.
"""

from __future__ import annotations

from asyncpg import UniqueViolationError

from modules.auth import authentication, sealing
from modules.auth import store as account_store
from modules.auth.errors import EmailTaken, TokenInvalid
from modules.auth.hashing import hash_new_password
from modules.auth.letters import requests, store
from modules.auth.records import Letter, Purpose
from modules.auth.schemas import email_key, normalise_email
from modules.auth.second_factor.service import require_step_up
from server.actor import Actor
from server.runtime import Runtime
from server.settings import planted_bugs

CODE_ATTEMPTS = 5  # for each letter; a code is one of a million


async def request_verification(rt: Runtime, email: str) -> None:
    """Send another letter that verifies an address, if it belongs to an account that needs one."""
    await _ask(rt, "verify", email)


async def verify_email(rt: Runtime, token: str) -> None:
    """Verify the address to which a letter went.

    Raises:
        TokenInvalid: wrong, used or too old.
    """
    await _verify(rt, await _find(rt, "verify", token))


async def verify_email_by_code(rt: Runtime, email: str, code: str, *, ip: str) -> None:
    """Verify an address by the short code of the letter.

    Raises:
        TokenInvalid: wrong, used, too old, or tried too often.
        RateLimited: too many were wrong lately.
    """
    try:
        email = normalise_email(email)
    except ValueError as error:
        raise TokenInvalid from error
    async with rt.limits.guess("login", ip, email, wrong=TokenInvalid):
        async with rt.database.connection() as conn:  # at once: the attempt counts whatever comes of it
            letter = await store.take_code_attempt(conn, email, rt.clock.now(), most=CODE_ATTEMPTS)
        if letter is None or not sealing.is_code_of(rt.settings, letter.id, code.strip()):
            raise TokenInvalid
        await _verify(rt, letter)


async def forgot_password(rt: Runtime, email: str) -> None:
    """Send a letter with which a new password can be set, if there is an account."""
    await _ask(rt, "reset", email)


async def reset_password(rt: Runtime, *, token: str, password: str) -> None:
    """Set a new password with the token of a letter; ends all sessions. The letter also showed whose the address is.

    Raises:
        TokenInvalid: wrong, used or too old.
        WeakPassword: the password can be guessed; the token can be used again.
        Unavailable: too many passwords wait to be hashed.
    """
    letter = await _find(rt, "reset", token)
    hashed = await hash_new_password(rt, password, about=(letter.email,))
    async with rt.database.transaction() as conn:
        await account_store.lock_user(conn, letter.user_id)
        now = rt.clock.now()
        if not await store.spend_letter(conn, letter.id, now) and "letters-unspent" not in planted_bugs():
            raise TokenInvalid
        await account_store.set_password_hash(conn, letter.user_id, hashed, now)
        await account_store.verify_user(conn, letter.user_id, now)
        await store.spend_letters_of(conn, letter.user_id, ("reset", "change"), now)
        ended = await account_store.revoke_sessions_of(conn, letter.user_id, "password", now)
        await requests.ask_for(conn, "password_changed", user_id=letter.user_id)
    authentication.forget(ended)


async def request_email_change(rt: Runtime, actor: Actor, email: str) -> None:
    """Send a letter to a new address; the account has it when the token of that letter comes back.

    Raises:
        NotConfirmed: the last proof of the actor is too old.
        ValueError: `email` is not an address.
    """
    await require_step_up(rt, actor)
    async with rt.database.transaction() as conn:
        await requests.ask_for(conn, "change", user_id=actor.user_id, email=normalise_email(email))


async def confirm_email_change(rt: Runtime, token: str) -> None:
    """Give an account the address to which the letter went; the old one is told.

    Raises:
        TokenInvalid: wrong, used or too old.
        EmailTaken: another account got this address in the meantime.
    """
    letter = await _find(rt, "change", token)
    try:
        await _change_email(rt, letter)
    except UniqueViolationError as error:
        raise EmailTaken from error


async def _change_email(rt: Runtime, letter: Letter) -> None:
    now = rt.clock.now()
    async with rt.database.transaction() as conn:
        await account_store.lock_user(conn, letter.user_id)
        user = await account_store.find_user(conn, letter.user_id)
        if user is None or not await store.spend_letter(conn, letter.id, now):
            raise TokenInvalid
        await account_store.set_email(conn, letter.user_id, letter.email, email_key(letter.email), now)
        await store.spend_letters_of(conn, letter.user_id, ("verify", "reset", "change"), now)
        await requests.ask_for(conn, "email_changed", user_id=letter.user_id, email=user.email)


async def _ask(rt: Runtime, kind: requests.Kind, email: str) -> None:
    """Ask for a letter to whoever has an address; what is no address is nobody's."""
    try:
        email = normalise_email(email)
    except ValueError:
        return
    async with rt.database.transaction() as conn:
        await requests.ask_for(conn, kind, email=email)


async def _find(rt: Runtime, purpose: Purpose, token: str) -> Letter:
    """The letter of a token, before the work that it permits is done for nothing."""
    async with rt.database.connection() as conn:
        letter = await store.find_letter(conn, sealing.digest(token), purpose, rt.clock.now())
    if letter is None:
        raise TokenInvalid
    return letter


async def _verify(rt: Runtime, letter: Letter) -> None:
    now = rt.clock.now()
    async with rt.database.transaction() as conn:
        await account_store.lock_user(conn, letter.user_id)
        if not await store.spend_letter(conn, letter.id, now):
            raise TokenInvalid
        await account_store.verify_user(conn, letter.user_id, now)
