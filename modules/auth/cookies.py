"""The refresh token in a cookie, for browsers: no script can read it, and no other site can make a browser use it.

HttpOnly and SameSite=Strict (RFC 6265bis), for the paths of auth only. SameSite does not stop another origin of the
same site, so a request that relies on the cookie must also carry a header of ours, which a form cannot send and a
script of another origin only where CORS lets it; and a browser that says where a request comes from must say: from
here.
"""

from __future__ import annotations

from http.cookies import Morsel

from aiohttp import web

from modules.auth.errors import CsrfSuspected
from server.settings import Settings

PATH = "/api/auth"
HEADER, VALUE = "X-Requested-With", "lectern"


def token_of(settings: Settings, request: web.Request) -> str | None:
    """The refresh token that came in a cookie, if one did.

    Raises:
        CsrfSuspected: one did, but not from a page of ours.
    """
    token = request.cookies.get(settings.auth.refresh_cookie)
    if token is None:
        return None
    site = request.headers.get("Sec-Fetch-Site", "same-origin")  # not every client is a browser
    if request.headers.get(HEADER) != VALUE or site not in ("same-origin", "same-site", "none"):
        raise CsrfSuspected
    return token


def keeping(settings: Settings, request: web.Request, token: str) -> str:
    """The header that stores a refresh token."""
    return _cookie(settings, request, token, settings.auth.refresh_token_seconds)


def removing(settings: Settings, request: web.Request) -> str:
    """The header that removes it."""
    return _cookie(settings, request, "", 0)


def _cookie(settings: Settings, request: web.Request, value: str, seconds: int) -> str:
    cookie: Morsel[str] = Morsel()
    cookie.set(settings.auth.refresh_cookie, value, value)
    cookie.update({"path": PATH, "max-age": str(seconds), "httponly": "yes", "samesite": "Strict"})
    if settings.public_url.startswith("https://") or request.secure:
        cookie["secure"] = "yes"
    return cookie.OutputString()
