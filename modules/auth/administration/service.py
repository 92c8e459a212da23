"""The use cases of administrators. Nobody else gets an answer from them."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from uuid import UUID

from modules.auth import authentication
from modules.auth import store as account_store
from modules.auth.administration import store
from modules.auth.errors import OwnAccount
from modules.auth.records import Account
from modules.auth.second_factor.service import require_step_up
from server.actor import Actor, SiteRole
from server.errors import Forbidden, NotFound
from server.runtime import Runtime

_WORD = re.compile(r"[\w@.-]+")
MOST_WORDS, WORD_LENGTH = 10, 254  # of a search; an address is the longest that is looked for


async def list_accounts(
    rt: Runtime, actor: Actor, *, search: str = "", disabled: bool | None = None, after: UUID | None = None, limit: int
) -> tuple[Sequence[Account], UUID | None]:
    """Accounts in the order of their making, and where the next page begins.

    Raises:
        Forbidden: the actor is no administrator.
    """
    _require_admin(actor)
    words = search_words(search)
    if search.strip() and words is None:
        return (), None  # nothing but punctuation: nobody is called that
    async with rt.database.connection() as conn:
        found = await store.list_accounts(conn, words=words, disabled=disabled, after=after, limit=limit + 1)
    more = len(found) > limit
    return found[:limit], found[limit - 1].user.id if more else None


async def change_account(
    rt: Runtime, actor: Actor, user_id: UUID, *, role: SiteRole | None, disabled: bool | None
) -> Account:
    """Give an account another role, or disable or enable it; disabling ends its sessions.

    Raises:
        Forbidden: the actor is no administrator (any more).
        NotConfirmed: the last proof of the actor is too old.
        NotFound: there is no such account.
        OwnAccount: it is the actor's own, so that there is always an administrator left.
    """
    _require_admin(actor)
    await require_step_up(rt, actor)
    now = rt.clock.now()
    async with rt.database.transaction() as conn:
        locked = await store.lock_accounts(conn, [actor.user_id, user_id])
        _require_still_admin(locked.get(actor.user_id))
        account = locked.get(user_id)
        if account is None:
            raise NotFound
        changed = _changed(account, role, disabled)
        if changed == account:
            return account
        if user_id == actor.user_id:
            raise OwnAccount
        await store.change_account(conn, user_id, role=changed.user.role, disabled=changed.disabled, now=now)
        ended = await account_store.revoke_sessions_of(conn, user_id, "disabled", now) if changed.disabled else []
    if changed.user.role != account.user.role:
        authentication.clear()  # its sessions are not known by user, and this is rare
    authentication.forget(ended)
    return changed


def search_words(text: str) -> str | None:
    """The words of a search as prefixes, in PostgreSQL's own syntax: `'ada':* & 'love':*`.

    Taken as they are, not parsed once more: a part of an address would be cut otherwise. None when there are no words.
    """
    words = [
        word.strip(".-")[:WORD_LENGTH]
        for word in _WORD.findall(text.lower().replace("_", " " if "@" not in text else "_"))
    ]
    return " & ".join(f"'{word}':*" for word in words[:MOST_WORDS] if word) or None


def _require_admin(actor: Actor) -> None:
    if not actor.is_admin:
        raise Forbidden


def _require_still_admin(account: Account | None) -> None:
    """What authentication knew is some seconds old."""
    if account is None or account.disabled or account.user.role != "admin":
        raise Forbidden


def _changed(account: Account, role: SiteRole | None, disabled: bool | None) -> Account:
    user = replace(account.user, role=role or account.user.role)
    return replace(account, user=user, disabled=account.disabled if disabled is None else disabled)
