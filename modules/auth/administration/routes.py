"""HTTP routes for administrators."""

from __future__ import annotations

from uuid import UUID

from modules.auth.administration import service
from modules.auth.errors import NotConfirmed, OwnAccount
from modules.auth.records import Account
from modules.auth.schemas import AccountChange, AccountOut, AccountsQuery
from server.errors import Forbidden, NotFound
from server.gateway.endpoint import Call, endpoint, route
from server.gateway.schema import Page, decode_cursor, encode_cursor


@endpoint(summary="Accounts, for administrators.", errors=(Forbidden,))
async def list_accounts(call: Call, query: AccountsQuery) -> Page[AccountOut]:
    """`q` finds by the beginnings of words of name and address; all of its words must be there."""
    after = decode_cursor(query.cursor, tuple[UUID])[0] if query.cursor else None
    found, next_id = await service.list_accounts(
        call.rt, call.actor, search=query.q, disabled=query.disabled, after=after, limit=query.limit
    )
    return Page(items=[_account(item) for item in found], next_cursor=encode_cursor([next_id]) if next_id else None)


@endpoint(
    summary="Change role or standing of an account, for administrators.",
    errors=(Forbidden, NotConfirmed, NotFound, OwnAccount),
)
async def change_account(call: Call, user_id: UUID, body: AccountChange) -> AccountOut:
    """Disabling ends all sessions of the account. Your own account has to be changed by somebody else.

    Needs a proof (login or step-up) of the last five minutes.
    """
    changed = await service.change_account(call.rt, call.actor, user_id, role=body.role, disabled=body.disabled)
    return _account(changed)


def _account(account: Account) -> AccountOut:
    user = account.user
    return AccountOut(
        id=user.id,
        name=user.name,
        avatar_url=user.avatar_url,
        email=user.email,
        role=user.role,
        verified=user.verified,
        disabled=account.disabled,
        created_at=account.created_at,
    )


ROUTES = (
    route("GET", "/api/auth/users", list_accounts),
    route("PATCH", "/api/auth/users/{user_id}", change_account),
)
