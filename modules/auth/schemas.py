"""The wire shapes of auth, and the rules for addresses, names and passwords that come from outside."""

from __future__ import annotations

import unicodedata
from typing import Annotated, Literal
from uuid import UUID

from email_validator import EmailNotValidError, validate_email
from pydantic import AfterValidator, Field, SecretStr, StringConstraints

from server.actor import SiteRole
from server.gateway.schema import Line, Schema

EMAIL_LENGTH = 254  # characters; RFC 5321 section 4.5.3.1.3, and a check of the table
NAME_LENGTH = 100  # characters
PASSWORD_LENGTH = 128  # characters; hashing a longer one would let a caller buy our time with his bytes
REFRESH_TOKEN_LENGTH = 128  # characters; ours have at most 87
# Overrides and isolates make a name that reads as another one, and run on into the text after it (UAX #9).
_BIDI_CONTROLS = frozenset("\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")


def normalise_email(email: str) -> str:
    """Bring an address into the one form in which it is stored and looked up: valid syntax, lower case, NFC.

    Nothing is asked over the network. Mailboxes that differ only in case are one account: no provider in use keeps
    them apart (RFC 5321 section 2.4 would allow it).

    Raises:
        ValueError: it is not an address; the message says why.
    """
    try:
        # test_environment lets `.test` through, which RFC 6761 reserves for installations that send no mail.
        given = validate_email(email.strip(), check_deliverability=False, test_environment=True)
    except EmailNotValidError as error:
        raise ValueError(str(error)) from error
    email = unicodedata.normalize("NFC", given.normalized.lower())
    if len(email) > EMAIL_LENGTH:  # lower case can be longer: İ
        raise ValueError("The e-mail address is too long.")
    return email


def _presentable(name: str) -> str:
    """NFC, without bidirectional controls, and with something to see (Unicode categories L, N, P and S)."""
    if not _BIDI_CONTROLS.isdisjoint(name):
        raise ValueError("Remove the characters that change the direction of the text.")
    if not any(unicodedata.category(character)[0] in "LNPS" for character in name):
        raise ValueError("Give a name that can be seen.")
    name = unicodedata.normalize("NFC", name)
    if len(name) > NAME_LENGTH:  # some letters grow under NFC
        raise ValueError(f"Give a name of at most {NAME_LENGTH} characters.")
    return name


Email = Annotated[str, StringConstraints(max_length=EMAIL_LENGTH), AfterValidator(normalise_email)]
Name = Annotated[Line, StringConstraints(min_length=1, max_length=NAME_LENGTH), AfterValidator(_presentable)]
NewPassword = Annotated[SecretStr, Field(min_length=8, max_length=PASSWORD_LENGTH)]


class UserSummary(Schema):
    """A user as anybody sees them."""

    id: UUID
    name: str
    avatar_url: str | None


class UserOut(UserSummary):
    """A user as they see themselves."""

    email: str
    role: SiteRole
    verified: bool


class RegisterIn(Schema):
    email: Email
    password: NewPassword
    name: Name


class RegisterOut(Schema):
    user: UserOut


class LoginIn(Schema):
    """The address is not checked here: one that is no address is answered like one that nobody has."""

    email: str = Field(max_length=EMAIL_LENGTH)
    password: SecretStr = Field(max_length=PASSWORD_LENGTH)
    totp: str | None = Field(
        default=None, max_length=32, description="A one-time code. Ignored while an account has no second factor."
    )


class RefreshIn(Schema):
    refresh_token: SecretStr = Field(max_length=REFRESH_TOKEN_LENGTH)


class TokensOut(Schema):
    """A bearer token for `expires_in` seconds, and what to get the next one with."""

    access_token: str
    token_type: Literal["Bearer"] = "Bearer"  # noqa: S105 - the type of a token (RFC 6750), not a token
    expires_in: int
    refresh_token: str
    user: UserOut


class PublicKey(Schema):
    """An Ed25519 key as RFC 8037 section 2 writes it."""

    kty: Literal["OKP"] = "OKP"
    crv: Literal["Ed25519"] = "Ed25519"
    use: Literal["sig"] = "sig"
    alg: Literal["EdDSA"] = "EdDSA"
    kid: str
    x: str


class KeySet(Schema):
    """RFC 7517 section 5; the first key signs, the others only verify what older secrets have signed."""

    keys: tuple[PublicKey, ...]
