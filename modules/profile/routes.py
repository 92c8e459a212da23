"""HTTP of profile: parse → service → answer."""

from __future__ import annotations

from uuid import UUID

import orjson
from aiohttp import hdrs, web

from modules.auth import NotConfirmed, UserSummary
from modules.profile import service
from modules.profile.errors import AdminStays
from modules.profile.schemas import (
    DeleteIn,
    PersonOut,
    Preferences,
    PreferencesChange,
    ProfileChange,
    ProfileOut,
    SearchQuery,
    change_of,
)
from server.clock import rfc3339
from server.errors import Conflict, NotFound, RateLimited
from server.gateway.conditions import Match
from server.gateway.endpoint import Call, endpoint, route
from server.gateway.schema import Page, decode_cursor, encode_cursor
from server.module import INSTALLED

EXPORT_FORMAT = "lectern-export-1"


@endpoint(summary="Your own profile.", tagged=True)
async def get_profile(call: Call) -> ProfileOut:
    profile = await service.get_own_profile(call.rt, call.actor)
    call.tag(service.version_of(profile))
    return profile


@endpoint(summary="Change your own profile.")
async def change_profile(call: Call, body: ProfileChange, match: Match) -> ProfileOut:
    """What is left out stays; null goes back to nothing, or to the default.

    Your name is what everybody sees: new events carry a new one within a few seconds, stored ones keep the old.
    """
    profile = await service.change_own_profile(call.rt, call.actor, change_of(body), match)
    call.tag(service.version_of(profile))
    return profile


@endpoint(summary="Your own preferences.", tagged=True)
async def get_preferences(call: Call) -> Preferences:
    preferences = await service.get_preferences(call.rt, call.actor)
    call.tag(service.version_of(preferences))
    return preferences


@endpoint(summary="Change your own preferences.")
async def change_preferences(call: Call, body: PreferencesChange, match: Match) -> Preferences:
    """What is left out stays; null goes back to the default."""
    preferences = await service.change_preferences(call.rt, call.actor, change_of(body), match)
    call.tag(service.version_of(preferences))
    return preferences


@endpoint(summary="Somebody with whom you share a course.", errors=(NotFound,))
async def get_person(call: Call, user_id: UUID) -> PersonOut:
    """What somebody does not show you looks like what they have not told."""
    return await service.get_person(call.rt, call.actor, user_id)


@endpoint(summary="Search the people with whom you share a course, by name.")
async def search_people(call: Call, query: SearchQuery) -> Page[UserSummary]:
    """All words must be in a name, the last one may be unfinished; accents do not matter. Best matches come first."""
    after = decode_cursor(query.cursor, tuple[float, UUID]) if query.cursor else None
    found = await service.search_people(call.rt, call.actor, query.q, after=after, limit=query.limit + 1)
    shown = found[: query.limit]
    cursor = encode_cursor([shown[-1].rank, shown[-1].id]) if len(found) > query.limit else None
    people = [UserSummary(id=hit.id, name=hit.name, avatar_url=hit.avatar_url) for hit in shown]
    return Page(items=people, next_cursor=cursor)


@endpoint(
    summary="All that this server holds about you, as one archive.",
    produces=("application/json",),
    limit="export",
)
async def export_data(call: Call) -> web.Response:
    """`{"format", "exported_at", "user_id", "modules": {name: …}}`; each module describes its own part."""
    modules = call.request.app[INSTALLED]
    archive = {
        "format": EXPORT_FORMAT,
        "exported_at": rfc3339(call.rt.clock.now()),
        "user_id": call.actor.user_id,
        "modules": await service.export_own_data(call.rt, call.actor, modules),
    }
    body = orjson.dumps(archive, option=orjson.OPT_UTC_Z)
    headers = {
        hdrs.CONTENT_DISPOSITION: 'attachment; filename="lectern-export.json"',
        hdrs.CACHE_CONTROL: "no-store",
    }
    return web.Response(body=body, content_type="application/json", headers=headers)


@endpoint(summary="Delete your account.", errors=(NotConfirmed, AdminStays, Conflict, RateLimited))
async def delete_account(call: Call, body: DeleteIn | None = None) -> None:
    """For good: your sessions end, you leave all courses, your messages become tombstones, your name is forgotten.

    Needs your password, or a proof (login or step-up) of the last five minutes. Refused while you are the last owner
    of a course.
    """
    password = body.password.get_secret_value() if body is not None and body.password is not None else None
    modules = call.request.app[INSTALLED]
    await service.erase_own_account(call.rt, call.actor, modules, password=password, ip=call.client_ip)


ROUTES = (
    route("GET", "/api/profile/me", get_profile),
    route("PATCH", "/api/profile/me", change_profile),
    route("DELETE", "/api/profile/me", delete_account),
    route("GET", "/api/profile/me/preferences", get_preferences),
    route("PATCH", "/api/profile/me/preferences", change_preferences),
    route("GET", "/api/profile/me/export", export_data),
    route("GET", "/api/profile/search", search_people),
    route("GET", "/api/profile/users/{user_id}", get_person),
)
