"""HTTP routes of auth. Answers that hold tokens are never cached (RFC 6749 section 5.1)."""

from __future__ import annotations

from aiohttp import hdrs

from modules.auth import service, tokens
from modules.auth.errors import EmailTaken, InvalidCredentials, RefreshReused
from modules.auth.schemas import (
    KeySet,
    LoginIn,
    PublicKey,
    RefreshIn,
    RegisterIn,
    RegisterOut,
    TokensOut,
    UserOut,
)
from modules.auth.service import Login
from server.gateway.endpoint import Call, endpoint, route

DEVICE_LENGTH = 200  # characters of a User-Agent that are kept
KEY_SET_CACHE = "public, max-age=300"  # seconds; a new secret signs at once, so not long
NEVER_CACHED = "no-store"


@endpoint(summary="Create an account.", status=201, public=True, limit="register", errors=(EmailTaken,))
async def register(call: Call, body: RegisterIn) -> RegisterOut:
    password = body.password.get_secret_value()
    user = await service.register(call.rt, email=body.email, password=password, name=body.name)
    return RegisterOut(user=UserOut.model_validate(user, from_attributes=True))


@endpoint(summary="Sign in and begin a session.", public=True, limit="login", errors=(InvalidCredentials,))
async def login(call: Call, body: LoginIn) -> TokensOut:
    """An unknown address, a wrong password and a disabled account get the same answer after the same work."""
    password = body.password.get_secret_value()
    ip = call.client_ip
    async with call.rt.limits.guess("login", ip, body.email, wrong=InvalidCredentials):
        found = await service.login(call.rt, email=body.email, password=password, device=_device(call), ip=ip)
    return _tokens(call, found)


@endpoint(summary="Exchange a refresh token for new tokens.", public=True, errors=(RefreshReused,))
async def refresh(call: Call, body: RefreshIn) -> TokensOut:
    """Each refresh token works once.

    The same one may be sent again for a grace of 10 s (by default) after its successor was made and gets that
    successor; later, or when it is older still, the session ends with `refresh_reused`.
    """
    return _tokens(call, await service.refresh(call.rt, body.refresh_token.get_secret_value()))


@endpoint(summary="End this session.")
async def logout(call: Call) -> None:
    await service.logout(call.rt, call.actor)


@endpoint(summary="End all of your sessions, on every device.")
async def logout_all(call: Call) -> None:
    await service.logout_all(call.rt, call.actor)


@endpoint(summary="Your own account.")
async def me(call: Call) -> UserOut:
    return UserOut.model_validate(await service.own_user(call.rt, call.actor), from_attributes=True)


@endpoint(summary="The public keys that verify access tokens.", public=True)
async def jwks(call: Call) -> KeySet:
    call.headers[hdrs.CACHE_CONTROL] = KEY_SET_CACHE
    keys = tokens.keyring(call.rt.settings).public_keys.items()
    return KeySet(keys=tuple(PublicKey(kid=kid, x=tokens.base64url(key.public_bytes_raw())) for kid, key in keys))


def _tokens(call: Call, login: Login) -> TokensOut:
    call.headers[hdrs.CACHE_CONTROL] = NEVER_CACHED
    return TokensOut.model_validate(login, from_attributes=True)


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
    route("GET", "/api/auth/.well-known/jwks.json", jwks),
)
