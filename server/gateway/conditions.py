"""Entity tags and the conditions of a request on them (RFC 9110 section 13); knows no HTTP, so services use it too.

A handler with a parameter `match: Match` gets what If-Match demands and hands it to its service, which checks it under
the lock of the row: `match.check(course.updated_at)`. A handler that calls `call.tag(version)` gives its answer an
ETag, and a GET with a matching If-None-Match is then answered with 304.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from uuid import UUID

from server.errors import Conflict

Version = datetime | int | str | UUID
"""What changes with each change of a resource: the time of its last change, a counter, a digest."""

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_TAG = re.compile(r'\s*(W/)?("[\x21\x23-\x7e\x80-\xff]*")\s*(?:,|$)')
ETAG = "ETag"  # as handlers write it; aiohttp's own constant is spelt otherwise
ANY = "*"


class Stale(Conflict):
    """A condition of the request does not hold any more."""

    status = 412
    message = "This was changed in the meantime. Read it again."


@dataclass(frozen=True, slots=True)
class Match:
    """What If-Match demands: one of these tags; None demands nothing."""

    tags: frozenset[str] | None = None

    def check(self, version: Version) -> None:
        """Raises:
        Stale: the resource has none of the versions demanded.
        """
        if self.tags is not None and etag(version) not in self.tags:
            raise Stale


ANY_VERSION = Match()


def etag(version: Version) -> str:
    """Write a version as a strong entity tag, a time in microseconds."""
    if isinstance(version, datetime):
        version = (version - _EPOCH) // timedelta(microseconds=1)
    return f'"{version:x}"' if isinstance(version, int) else f'"{version}"'


def if_match(header: str | None) -> Match:
    """Read If-Match; what is no list of tags matches nothing, since its sender did demand something."""
    if header is None or header.strip() == ANY:
        return ANY_VERSION
    return Match(frozenset(tag for weak, tag in _TAG.findall(header) if not weak))


def is_unchanged(header: str | None, tag: str | None) -> bool:
    """Tell whether If-None-Match names the tag that the answer has; weak and strong count as the same."""
    if header is None or tag is None:
        return False
    return header.strip() == ANY or any(found == tag.removeprefix("W/") for _, found in _TAG.findall(header))
