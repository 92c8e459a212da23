"""Versions of what profile answers, as entity tags (RFC 9110 section 8.8.3). Pure.

They follow from the content, so that a change of one's password does not make a profile look changed.
"""

from __future__ import annotations

import hashlib

from pydantic import BaseModel


def version_of(answer: BaseModel) -> str:
    """The strong entity tag of an answer, with its quotation marks."""
    return f'"{hashlib.blake2b(answer.model_dump_json().encode(), digest_size=12).hexdigest()}"'


def demanded_versions(if_match: str | None) -> frozenset[str] | None:
    """What an If-Match header demands, None for anything; a weak tag never matches (section 13.1.1)."""
    if if_match is None or if_match.strip() == "*":
        return None
    return frozenset(tag.strip() for tag in if_match.split(","))
