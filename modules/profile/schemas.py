"""The wire shapes of profile, and how they are read back from what is stored.

A change is a JSON merge patch (RFC 7396): what is left out stays, null goes back to the default. What is stored holds
only what somebody has set, and may hold more than this release knows.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping
from functools import cache
from typing import Annotated, Any, Literal, TypeVar
from urllib.parse import urlsplit
from zoneinfo import available_timezones

from pydantic import AfterValidator, Field, SecretStr, StringConstraints, ValidationError

from modules.auth import Name, UserSummary
from server.gateway.schema import Line, PageQuery, Schema, Text

MOST_LINKS = 5
LINK_LENGTH = 500  # characters
PASSWORD_LENGTH = 128  # characters, as auth takes them

Audience = Literal["courses", "instructors", "nobody"]
"""Who sees a part of a profile: everybody in my courses, those who teach in them, or nobody else."""

M = TypeVar("M", bound=Schema)
_LOCALE = re.compile(r"([A-Za-z]{2,3})(?:[-_]([A-Za-z]{4}))?(?:[-_]([A-Za-z]{2}|[0-9]{3}))?")


def _locale(tag: str) -> str:
    """The usual spelling of a language tag of language, script and region (RFC 5646 section 2.1.1), `pt-BR`."""
    match = _LOCALE.fullmatch(tag)
    if match is None:
        raise ValueError("Give a language tag such as `en` or `pt-BR`.")
    language, script, region = match.groups()
    return "-".join(filter(None, (language.lower(), script and script.title(), region and region.upper())))


@cache  # read from files, a few milliseconds
def _time_zones() -> frozenset[str]:
    return frozenset(available_timezones()) | {"UTC"}


def _time_zone(name: str) -> str:
    if name not in _time_zones():
        raise ValueError("Give the name of a time zone such as `Europe/Berlin`.")
    return name


def _web_address(link: str) -> str:
    """A link that is safe to show as one: no scripts, no user name that looks like another host, nothing unseen."""
    try:
        parts = urlsplit(link)
        usable = parts.scheme in ("http", "https") and parts.hostname and parts.username is None and parts.port != 0
    except ValueError:
        usable = False
    if not usable or any(unicodedata.category(letter)[0] in "CZ" or letter in '"<>\\^`{|}' for letter in link):
        raise ValueError("Give a web address that begins with http:// or https://.")
    return link


Pronouns = Annotated[Line, StringConstraints(min_length=1, max_length=40)]
Bio = Annotated[Text, StringConstraints(max_length=2000, strip_whitespace=True)]
Locale = Annotated[str, StringConstraints(max_length=16), AfterValidator(_locale)]
TimeZone = Annotated[str, StringConstraints(max_length=64), AfterValidator(_time_zone)]
Link = Annotated[Line, StringConstraints(max_length=LINK_LENGTH), AfterValidator(_web_address)]


class Details(Schema):
    """What people tell of themselves besides their name, which everybody in their courses sees."""

    pronouns: Pronouns | None = Field(default=None, examples=["she/her"])
    bio: Bio | None = None
    locale: Locale | None = Field(default=None, examples=["pt-BR"])
    time_zone: TimeZone | None = Field(default=None, examples=["Europe/Berlin"])
    links: tuple[Link, ...] = Field(default=(), max_length=MOST_LINKS)


class Visibility(Schema):
    """Who sees each part; a part that others can use to reach or place a person is for those who teach, at first."""

    pronouns: Audience = "courses"
    bio: Audience = "courses"
    locale: Audience = "instructors"
    time_zone: Audience = "instructors"
    links: Audience = "courses"


class VisibilityChange(Schema):
    pronouns: Audience | None = None
    bio: Audience | None = None
    locale: Audience | None = None
    time_zone: Audience | None = None
    links: Audience | None = None


class ProfileOut(Details, UserSummary):
    """Your own profile."""

    visibility: Visibility


class ProfileChange(Schema):
    """What to change; what is left out stays, null empties. A name cannot be emptied."""

    name: Name = Field(default_factory=str)
    pronouns: Pronouns | None = Field(default=None, examples=["she/her"])
    bio: Bio | None = None
    locale: Locale | None = Field(default=None, examples=["pt-BR"])
    time_zone: TimeZone | None = Field(default=None, examples=["Europe/Berlin"])
    links: tuple[Link, ...] | None = Field(default=None, max_length=MOST_LINKS)
    visibility: VisibilityChange | None = None


class PersonOut(Details, UserSummary):
    """Somebody else's profile; what they do not show you looks like what they have not told."""


class SearchQuery(PageQuery):
    q: Line = Field(min_length=1, max_length=100, description="Words of a name; the last one may be unfinished.")


class Notifications(Schema):
    """What to be told about, and how, where nothing else was chosen."""

    email: bool = True
    push: bool = True
    sound: bool = True
    mentions: bool = True
    class_started: bool = True
    announcements: bool = True


class NotificationsChange(Schema):
    email: bool | None = None
    push: bool | None = None
    sound: bool | None = None
    mentions: bool | None = None
    class_started: bool | None = None
    announcements: bool | None = None


class Preferences(Schema):
    """How a person likes things; `system` follows the device."""

    theme: Literal["system", "light", "dark"] = "system"
    language: Locale = "en"
    reduced_motion: Literal["system", "on", "off"] = "system"
    high_contrast: bool = False
    text_size: Literal["small", "normal", "large"] = "normal"
    time_format: Literal["locale", "12h", "24h"] = "locale"
    week_start: Literal["locale", "monday", "saturday", "sunday"] = "locale"
    captions: bool = False
    notifications: Notifications = Notifications()


class PreferencesChange(Schema):
    """What to change; what is left out stays, null goes back to the default."""

    theme: Literal["system", "light", "dark"] | None = None
    language: Locale | None = None
    reduced_motion: Literal["system", "on", "off"] | None = None
    high_contrast: bool | None = None
    text_size: Literal["small", "normal", "large"] | None = None
    time_format: Literal["locale", "12h", "24h"] | None = None
    week_start: Literal["locale", "monday", "saturday", "sunday"] | None = None
    captions: bool | None = None
    notifications: NotificationsChange | None = None


class DeleteIn(Schema):
    """The password is needed unless you signed in, or proved that it is you, within the last five minutes."""

    password: SecretStr | None = Field(default=None, max_length=PASSWORD_LENGTH)


def change_of(body: Schema) -> dict[str, Any]:  # Any: JSON
    """What a change sets, as JSON: the fields that were sent."""
    return body.model_dump(mode="json", exclude_unset=True)


def merged(stored: Mapping[str, Any], change: Mapping[str, Any]) -> dict[str, Any]:  # Any: JSON
    """Apply a JSON merge patch (RFC 7396)."""
    result = dict(stored)
    for key, value in change.items():
        if value is None:
            result.pop(key, None)
        elif isinstance(value, Mapping):
            before = result.get(key)
            result[key] = merged(before if isinstance(before, Mapping) else {}, value)
        else:
            result[key] = value
    return result


def understood(model: type[M], stored: object) -> M:
    """Read a stored object as far as this release understands it; the rest has its default.

    A newer release may have stored more fields, or other values in these (GUARANTEES.md G14).
    """
    fields = stored if isinstance(stored, Mapping) else {}
    known = {key: value for key, value in fields.items() if key in model.model_fields}
    try:
        return model.model_validate(known)
    except ValidationError as error:
        bad = {item["loc"][0] for item in error.errors(include_url=False)}
        return model.model_validate({key: value for key, value in known.items() if key not in bad})
