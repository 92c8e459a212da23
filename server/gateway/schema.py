"""Shared wire types: the closed schema, text, bounded integers, times, pages and cursors.

What every module and both doors use to describe JSON. Nothing here knows a feature, a request or a table.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Hashable, Sequence
from functools import cache
from typing import Annotated, Any, Generic, TypeVar, cast

from pydantic import (
    AwareDatetime,
    BaseModel,
    ConfigDict,
    Field,
    PlainSerializer,
    StringConstraints,
    TypeAdapter,
    ValidationError,
    WithJsonSchema,
)
from pydantic_core import ErrorDetails, to_json

from server.clock import rfc3339
from server.errors import FieldError, Invalid

T = TypeVar("T")

# PostgreSQL cannot store NUL, terminals act on the other control characters; pydantic itself refuses lone surrogates.
_TEXT = r"^[^\x00-\x08\x0b\x0c\x0e-\x1f\x7f]*$"
_LINE = r"^[^\x00-\x1f\x7f-\x9f\u2028\u2029]*$"
_FRIENDLIER = {
    _TEXT: "Remove the control characters.",
    _LINE: "Remove the line breaks and control characters.",
    "extra_forbidden": "This field is not known here.",
    "missing": "This field is needed.",
}
CURSOR_LENGTH = 512  # characters
# Describing half a million wrong items of one body would hold the event loop for seconds.
LISTED_ERRORS = 1000

Text = Annotated[str, StringConstraints(pattern=_TEXT)]
"""Text of several lines: everything but control characters other than tab and line breaks."""

Line = Annotated[str, StringConstraints(pattern=_LINE, strip_whitespace=True)]
"""Text of one line, e.g. a name or a title; outer white space is cut."""

Int32 = Annotated[int, Field(ge=-(2**31), le=2**31 - 1)]
Int64 = Annotated[int, Field(ge=-(2**63), le=2**63 - 1)]
"""What fits a PostgreSQL bigint; an unbounded int from outside ends in an error of the driver."""

Seq = Annotated[int, Field(ge=0, le=2**63 - 1)]
"""A position in a log, or a count."""

Timestamp = Annotated[
    AwareDatetime,
    PlainSerializer(rfc3339, return_type=str, when_used="json"),
    WithJsonSchema({"type": "string", "format": "date-time"}, mode="serialization"),
]
"""A moment: read with any UTC offset, written as RFC 3339 in UTC with milliseconds and `Z`."""


class Schema(BaseModel):
    """A closed, immutable shape on the wire: unknown fields, NaN and infinities are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class PageQuery(Schema):
    """The query string of every list."""

    limit: int = Field(default=50, ge=1, le=200, description="Most items to answer.")
    cursor: str | None = Field(
        default=None, max_length=CURSOR_LENGTH, description="`next_cursor` of the page before; none for the first page."
    )


class Page(Schema, Generic[T]):
    """One page of a list; `next_cursor` is null on the last one."""

    items: Sequence[T]
    next_cursor: str | None = None


def encode_cursor(position: Sequence[Any]) -> str:  # Any: scalars that JSON can say (UUID, datetime, int, str)
    """Make an opaque cursor of the sort key of the last item of a page."""
    return base64.urlsafe_b64encode(to_json(position)).rstrip(b"=").decode()


def decode_cursor(cursor: str, kind: type[T]) -> T:
    """Read a cursor as the tuple type that was encoded, e.g. `tuple[datetime, UUID]`.

    A cursor is not secret and not signed: it only says where to go on in what the actor may see anyway.

    Raises:
        Invalid: the cursor was not made by `encode_cursor` for such a list.
    """
    try:
        raw = base64.b64decode(cursor + "=" * (-len(cursor) % 4), altchars=b"-_", validate=True)
        position: T = _cursor_adapter(cast(Hashable, kind)).validate_json(raw)
    except (ValidationError, binascii.Error, ValueError) as error:
        raise Invalid(errors=[FieldError(("cursor",), "Take `next_cursor` of the page before.")]) from error
    return position


def invalid(error: ValidationError) -> Invalid:
    """Translate what pydantic found into an answer that names every wrong field and repeats no value."""
    count = error.error_count()
    if count > LISTED_ERRORS:
        return Invalid(errors=[FieldError((), f"{count} values are not valid; that is too many to list them.")])
    details = error.errors(include_url=False, include_input=False)
    return Invalid(errors=[FieldError(item["loc"], _message(item)) for item in details])


def is_unparsable(error: ValidationError) -> bool:
    """Tell text that is no JSON from JSON of the wrong shape."""
    return error.error_count() == 1 and error.errors(include_url=False)[0]["type"] == "json_invalid"


def _message(item: ErrorDetails) -> str:
    kind = item["type"]
    if kind == "string_pattern_mismatch":
        kind = item.get("ctx", {}).get("pattern", kind)
    return _FRIENDLIER.get(kind) or item["msg"].removeprefix("Value error, ")


@cache  # one entry for each kind of list in the program
def _cursor_adapter(kind: Any) -> TypeAdapter[Any]:  # Any: the tuple type of a position
    return TypeAdapter(kind)
