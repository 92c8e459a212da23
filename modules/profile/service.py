"""The use cases of profile: one's own profile and preferences, other people, and leaving with or without one's data."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any
from uuid import UUID

from modules.auth import confirm_identity
from modules.profile import store
from modules.profile.errors import AdminStays
from modules.profile.schemas import Details, PersonOut, Preferences, ProfileOut, Visibility, merged, understood
from modules.profile.store import Acquaintance, Hit, Stored
from server.actor import Actor
from server.errors import NotFound, Unauthenticated
from server.gateway.conditions import ANY_VERSION, Match
from server.gateway.idempotency import erase_answers

if TYPE_CHECKING:
    from server.module import Module
    from server.runtime import Runtime

_WORD = re.compile(r"\w+")

Change = Mapping[str, Any]  # Any: a JSON merge patch, checked by its schema


async def get_own_profile(rt: Runtime, actor: Actor) -> ProfileOut:
    async with rt.database.connection() as conn:
        return _own_profile(_found(await store.read_stored(conn, actor.user_id)))


async def change_own_profile(rt: Runtime, actor: Actor, change: Change, match: Match = ANY_VERSION) -> ProfileOut:
    """Apply a merge patch.

    Raises:
        Stale: the profile is not of the version of `match`.
    """
    async with rt.database.transaction() as conn:
        before = _found(await store.lock_stored(conn, actor.user_id))
        match.check(version_of(_own_profile(before)))
        after = merged(before.profile, change)
        await store.write_profile(conn, actor.user_id, after, rt.clock.now())
    return _own_profile(Stored(actor.user_id, after, before.preferences))


async def get_preferences(rt: Runtime, actor: Actor) -> Preferences:
    async with rt.database.connection() as conn:
        return _preferences(_found(await store.read_stored(conn, actor.user_id)))


async def change_preferences(rt: Runtime, actor: Actor, change: Change, match: Match = ANY_VERSION) -> Preferences:
    """Apply a merge patch.

    Raises:
        Stale: the preferences are not of the version of `match`.
    """
    async with rt.database.transaction() as conn:
        before = _found(await store.lock_stored(conn, actor.user_id))
        match.check(version_of(_preferences(before)))
        after = merged(before.preferences, change)
        await store.write_preferences(conn, actor.user_id, after, rt.clock.now())
    return _preferences(Stored(actor.user_id, before.profile, after))


async def get_person(rt: Runtime, actor: Actor, user_id: UUID) -> PersonOut:
    """What the actor may know of somebody, or all of it when it is the actor.

    Raises:
        NotFound: there is nobody, or nobody who shares a course with the actor.
    """
    async with rt.database.connection() as conn:
        if user_id == actor.user_id:
            return _person(_found(await store.read_stored(conn, user_id)), seen=Details.model_fields)
        found = await store.find_acquaintance(conn, actor.user_id, user_id, is_admin=actor.is_admin)
    if found is None:
        raise NotFound
    return _person(found.stored, seen=_shown(found))


async def search_people(
    rt: Runtime, actor: Actor, text: str, *, after: tuple[float, UUID] | None, limit: int
) -> list[Hit]:
    """Those who share a course with the actor (for admins: all) and whose names have all of these words, best first.

    Only names are searched: addresses would be found out by guessing.
    """
    words = _WORD.findall(text)
    if not words:
        return []
    whole = " & ".join(f"'{word}'" for word in words)
    async with rt.database.connection() as conn:
        return await store.search(
            conn,
            actor.user_id,
            prefix_query=f"{whole}:*",
            whole_query=whole,
            is_admin=actor.is_admin,
            after=after,
            limit=limit,
        )


async def export_own_data(rt: Runtime, actor: Actor, modules: Sequence[Module]) -> dict[str, Mapping[str, Any]]:
    """All that the modules hold about the actor, by module."""
    async with rt.database.connection() as conn:
        return {
            module.name: await module.export_user(rt, conn, actor.user_id)
            for module in modules
            if module.export_user is not None
        }


async def erase_own_account(
    rt: Runtime, actor: Actor, modules: Sequence[Module], *, password: str | None, ip: str
) -> None:
    """Erase the actor from everything, all or nothing. It cannot be undone.

    Raises:
        NotConfirmed: the password is wrong, or missing while the last proof is not fresh.
        RateLimited: too many passwords were tried.
        AdminStays: the actor is an admin.
        Conflict: a module cannot do without the actor, e.g. as the last owner of a course.
    """
    if actor.is_admin:
        raise AdminStays
    await confirm_identity(rt, actor, password, ip=ip)
    async with rt.database.transaction() as conn:
        erasing = [module.erase_user for module in reversed(modules) if module.erase_user is not None]
        afterwards = [await erase(rt, conn, actor.user_id) for erase in erasing]
        await erase_answers(conn, actor.user_id)
    for finish in afterwards:
        if finish is not None:
            await finish()


def version_of(answer: ProfileOut | Preferences) -> str:
    """Follows from the content, so that a change of one's password does not make a profile look changed."""
    return hashlib.blake2b(answer.model_dump_json().encode(), digest_size=12).hexdigest()


def _found(stored: Stored | None) -> Stored:
    if stored is None:
        raise Unauthenticated
    return stored


def _own_profile(stored: Stored) -> ProfileOut:
    details = understood(Details, stored.profile)
    visibility = understood(Visibility, stored.profile.get("visibility"))
    return ProfileOut(**_summary(stored), **dict(details), visibility=visibility)


def _preferences(stored: Stored) -> Preferences:
    return understood(Preferences, stored.preferences)


def _person(stored: Stored, *, seen: Collection[str]) -> PersonOut:
    details = understood(Details, stored.profile)
    return PersonOut(**_summary(stored), **{key: value for key, value in details if key in seen})


def _shown(found: Acquaintance) -> set[str]:
    """The parts that somebody shows to this viewer."""
    audiences = {"courses", "instructors"} if found.taught else {"courses"}
    visibility = understood(Visibility, found.stored.profile.get("visibility"))
    return {part for part, audience in visibility if audience in audiences}


def _summary(stored: Stored) -> dict[str, Any]:
    name, avatar_url = stored.profile.get("name") or "", stored.profile.get("avatar_url")
    return {"id": stored.user_id, "name": name, "avatar_url": avatar_url}
