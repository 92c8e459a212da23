"""HTTP routes of auth. Answers that hold tokens or secrets are never cached (RFC 6749 section 5.1).

Those of letters, the second factor and the administration are in the packages beside this file.
"""

from __future__ import annotations

from uuid import UUID

from aiohttp import hdrs

from modules.auth import cookies, service, tokens
from modules.auth.administration import routes as administration
from modules.auth.errors import (
    CsrfSuspected,
    EmailTaken,
    InvalidCredentials,
    NotConfirmed,
    RefreshReused,
    TotpRequired,
    WeakPassword,
)
from modules.auth.letters import routes as letters
from modules.auth.records import ListedSession
from modules.auth.schemas import (
    ChangePasswordIn,
    KeySet,
    LoginIn,
    PublicKey,
    RefreshIn,
    RegisterIn,
    RegisterOut,
    SessionOut,
    TokensOut,
    UserOut,
)
from modules.auth.second_factor import routes as second_factor
from modules.auth.second_factor.service import require_fresh_factor
from modules.auth.service import Login
from server.errors import Conflict, NotFound, RateLimited, Unauthenticated
from server.gateway.endpoint import Call, endpoint, route
from server.gateway.schema import Page

DEVICE_LENGTH = 200  # characters of a User-Agent that are kept
KEY_SET_CACHE = "public, max-age=300"  # seconds; a new secret signs at once, so not long
NEVER_CACHED = "no-store"


@endpoint(
    summary="Create an account.",
    status=201,
    public=True,
    limit="register",
    errors=(EmailTaken, WeakPassword, RateLimited),
)
async def register(call: Call, body: RegisterIn) -> RegisterOut:
    """A letter to verify the address follows. A password that is easy to guess is refused.

    Where the installation requires verified addresses, an address that has an account is answered like any other, and
    its owner gets a letter instead.
    """
    password = body.password.get_secret_value()
    user = await service.register(call.rt, email=body.email, password=password, name=body.name)
    return RegisterOut(user=UserOut.model_validate(user, from_attributes=True))


@endpoint(
    summary="Sign in and begin a session.",
    public=True,
    limit="login",
    errors=(InvalidCredentials, TotpRequired, RateLimited),
)
async def login(call: Call, body: LoginIn) -> TokensOut:
    """An unknown address, a wrong password and an account that may not sign in get the same answer after the same work.

    An account with a second factor is answered `totp_required` when the password is right and `totp` is missing. With
    `cookie` the refresh token comes in an HttpOnly cookie, for browsers.
    """
    found = await service.login(
        call.rt,
        email=body.email,
        password=body.password.get_secret_value(),
        device=_device(call),
        ip=call.client_ip,
        totp=body.totp,
    )
    return _tokens(call, found, in_cookie=body.cookie)


@endpoint(
    summary="Exchange a refresh token for new tokens.",
    public=True,
    limit="login",
    errors=(RefreshReused, Unauthenticated, CsrfSuspected),
)
async def refresh(call: Call, body: RefreshIn = RefreshIn()) -> TokensOut:  # noqa: B008 - immutable
    """Each refresh token works once.

    A token may be sent again for a grace of 10 s (by default) after its successor was made and gets the current one;
    later the session ends with `refresh_reused`. Without a token in the body the one in the cookie is taken, and the
    new one goes there.
    """
    if body.refresh_token is not None:
        return _tokens(call, await service.refresh(call.rt, body.refresh_token.get_secret_value()))
    token = cookies.token_of(call.rt.settings, call.request)
    if token is None:
        raise Unauthenticated
    return _tokens(call, await service.refresh(call.rt, token), in_cookie=True)


@endpoint(summary="End this session.")
async def logout(call: Call) -> None:
    await service.logout(call.rt, call.actor)
    _drop_cookie(call)


@endpoint(summary="End all of your sessions, on every device.")
async def logout_all(call: Call) -> None:
    await service.logout_all(call.rt, call.actor)
    _drop_cookie(call)


@endpoint(summary="Your own account.")
async def me(call: Call) -> UserOut:
    return UserOut.model_validate(await service.own_user(call.rt, call.actor), from_attributes=True)


@endpoint(
    summary="Change your password.",
    limit="login",
    errors=(InvalidCredentials, WeakPassword, NotConfirmed, Conflict, RateLimited),
)
async def change_password(call: Call, body: ChangePasswordIn) -> None:
    """All your other sessions end. With a second factor, a code must have been given within the last five minutes."""
    await require_fresh_factor(call.rt, call.actor)
    current, new = body.current_password.get_secret_value(), body.new_password.get_secret_value()
    await service.change_password(call.rt, call.actor, current=current, new=new, ip=call.client_ip)


@endpoint(summary="Your sessions: where you are signed in.")
async def list_sessions(call: Call) -> Page[SessionOut]:
    """The one used last comes first; at most 200."""
    found = await service.list_sessions(call.rt, call.actor)
    return Page(items=[_session(call, session) for session in found])


@endpoint(summary="One of your sessions.")
async def get_session(call: Call, session_id: UUID) -> SessionOut:
    return _session(call, await service.find_session(call.rt, call.actor, session_id))


@endpoint(summary="End one of your sessions.", errors=(NotFound,))
async def end_session(call: Call, session_id: UUID) -> None:
    await service.end_session(call.rt, call.actor, session_id)


@endpoint(summary="End all of your sessions but this one.")
async def end_other_sessions(call: Call) -> None:
    await service.end_other_sessions(call.rt, call.actor)


@endpoint(summary="The public keys that verify access tokens.", public=True)
async def jwks(call: Call) -> KeySet:
    call.headers[hdrs.CACHE_CONTROL] = KEY_SET_CACHE
    keys = tokens.keyring(call.rt.settings).public_keys.items()
    return KeySet(keys=tuple(PublicKey(kid=kid, x=tokens.base64url(key.public_bytes_raw())) for kid, key in keys))


def _tokens(call: Call, login: Login, *, in_cookie: bool = False) -> TokensOut:
    call.headers[hdrs.CACHE_CONTROL] = NEVER_CACHED
    if in_cookie:
        call.headers[hdrs.SET_COOKIE] = cookies.keeping(call.rt.settings, call.request, login.refresh_token)
    return TokensOut(
        access_token=login.access_token,
        expires_in=login.expires_in,
        refresh_token=None if in_cookie else login.refresh_token,
        user=UserOut.model_validate(login.user, from_attributes=True),
    )


def _drop_cookie(call: Call) -> None:
    if call.rt.settings.auth.refresh_cookie in call.request.cookies:
        call.headers[hdrs.SET_COOKIE] = cookies.removing(call.rt.settings, call.request)


def _session(call: Call, session: ListedSession) -> SessionOut:
    return SessionOut(
        id=session.id,
        device=session.device,
        ip=session.ip,
        created_at=session.created_at,
        last_used_at=session.last_used_at,
        expires_at=session.expires_at,
        current=session.id == call.actor.session_id,
    )


def _device(call: Call) -> str:
    """The User-Agent without what PostgreSQL or a page could not show; a header may hold any bytes."""
    agent = call.request.headers.get(hdrs.USER_AGENT, "")
    return "".join(character for character in agent[:DEVICE_LENGTH] if character.isprintable())


ROUTES = (
    route("POST", "/api/auth/register", register),
    route("POST", "/api/auth/login", login),
    route("POST", "/api/auth/refresh", refresh),
    route("POST", "/api/auth/logout", logout),
    route("POST", "/api/auth/logout-all", logout_all),
    route("GET", "/api/auth/me", me),
    route("POST", "/api/auth/password/change", change_password),
    route("GET", "/api/auth/sessions", list_sessions),
    route("DELETE", "/api/auth/sessions", end_other_sessions),
    route("GET", "/api/auth/sessions/{session_id}", get_session),
    route("DELETE", "/api/auth/sessions/{session_id}", end_session),
    route("GET", "/api/auth/.well-known/jwks.json", jwks),
    *letters.ROUTES,
    *second_factor.ROUTES,
    *administration.ROUTES,
)
