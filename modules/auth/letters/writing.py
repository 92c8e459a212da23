"""Writing letters: from the event that asks for one to a letter with a token, or to nothing where there is no reason.

A letter may be written twice for one event; it then holds the same token and the same Message-ID.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from urllib.parse import quote
from uuid import UUID

from modules.auth import sealing
from modules.auth import store as account_store
from modules.auth.letters import store
from modules.auth.letters.requests import Kind
from modules.auth.records import Credentials, NewLetter, Purpose, User
from modules.auth.schemas import email_key
from server.database import Connection
from server.mail import Letter, Templates
from server.runtime import Runtime

TEMPLATES = Templates(Path(__file__).parent / "templates")
# A stranger can ask for letters to somebody else; more than these do not go out.
MOST_LETTERS, MOST_LETTERS_WITHIN = 5, timedelta(hours=1)
PURPOSES: dict[Kind, Purpose] = {
    "verify": "verify",
    "reset": "reset",
    "already_registered": "reset",
    "change": "change",
}
LINKS: dict[Purpose, str] = {
    "verify": "#/verify-email/",
    "reset": "#/reset-password/",
    "change": "#/confirm-email/",
}


@dataclass(frozen=True, slots=True)
class Request:
    """An event that asks for a letter."""

    id: UUID
    kind: Kind
    user_id: UUID | None
    email: str | None


async def write_letter(rt: Runtime, request: Request) -> Letter | None:
    """Write a letter and keep the digest of its token; None when nobody is to get one."""
    async with rt.database.transaction() as conn:
        found = await _addressee(conn, request)
        if found is None or found.disabled:
            return None
        kind, to = request.kind, request.email or found.user.email
        if kind == "change" and await account_store.is_email_taken(conn, to, email_key(to)):
            return await _fill_in(rt, request, "address_taken", found.user, to)
        if kind == "verify" and found.user.verified:
            return None
        purpose = PURPOSES.get(kind)
        if purpose is not None and not await _keep(rt, conn, request, found.user, purpose, to):
            return None
    return await _fill_in(rt, request, kind, found.user, to)


async def _addressee(conn: Connection, request: Request) -> Credentials | None:
    if request.user_id is not None:
        return await account_store.find_credentials_of(conn, request.user_id)
    return await account_store.find_credentials(conn, request.email or "")


async def _keep(rt: Runtime, conn: Connection, request: Request, user: User, purpose: Purpose, to: str) -> bool:
    now = rt.clock.now()
    await account_store.lock_user(conn, user.id)  # letters that are written side by side are counted one by one
    if await store.count_letters(conn, user.id, purpose, now - MOST_LETTERS_WITHIN, request.id) >= MOST_LETTERS:
        return False
    token_hash = sealing.digest(sealing.letter_token(rt.settings, request.id))
    expires_at = now + timedelta(seconds=_lifetime(rt, purpose))
    return await store.save_letter(conn, NewLetter(request.id, user.id, purpose, to, token_hash, expires_at), now)


def _lifetime(rt: Runtime, purpose: Purpose) -> int:
    auth = rt.settings.auth
    return auth.verification_seconds if purpose == "verify" else auth.email_token_seconds


async def _fill_in(rt: Runtime, request: Request, template: str, user: User, to: str) -> Letter:
    purpose = PURPOSES.get(request.kind, "verify")
    home = rt.settings.public_url.rstrip("/") + "/"
    # Behind the `#`: what stands there is never sent to a server, so no log and no Referer holds a token. Opening the
    # link shows a page; only its button uses the token, for scanners of mail open every link.
    link = f"{home}{LINKS[purpose]}{quote(sealing.letter_token(rt.settings, request.id))}"
    minutes = _lifetime(rt, purpose) // 60
    values = {
        "name": user.name,
        "email": user.email,
        "link": link,
        "home": home,
        "code": sealing.letter_code(rt.settings, request.id),
        "lifetime": f"{minutes // 60} hours" if minutes >= 120 else f"{minutes} minutes",
    }
    return await TEMPLATES.write(template, key=request.id.hex, to=to, values=values)
