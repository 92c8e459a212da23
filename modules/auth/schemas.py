"""The wire shapes of auth, and the rules for addresses, names and passwords that come from outside."""

from __future__ import annotations

import unicodedata
from typing import Annotated, Literal, Self
from uuid import UUID

from email_validator import EmailNotValidError, validate_email
from pydantic import AfterValidator, Field, SecretStr, StringConstraints, model_validator

from server.actor import SiteRole
from server.gateway.schema import Line, PageQuery, Schema, Timestamp

EMAIL_LENGTH = 254  # characters; RFC 5321 section 4.5.3.1.3, and a check of the table
NAME_LENGTH = 100  # characters
PASSWORD_LENGTH = 128  # characters; hashing a longer one would let a caller buy our time with his bytes
REFRESH_TOKEN_LENGTH = 128  # characters; ours have at most 87
LETTER_TOKEN_LENGTH = 100  # characters; ours have 43
CODE_LENGTH = 32  # characters; a recovery code with its hyphens has 19
# Overrides and isolates make a name that reads as another one, and run on into the text after it (UAX #9).
_BIDI_CONTROLS = frozenset("\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")

# Letters of other scripts that look like Latin ones (Unicode TR39, the part that occurs in addresses).
_LOOKALIKES = str.maketrans(
    {
        **dict(zip("аеорсухіјѕԁԛԝһӏѵҽ", "aeopcyxijsdqwhlve", strict=True)),  # Cyrillic
        **dict(zip("αορνικτυχεγη", "aopviktuxeyn", strict=True)),  # Greek
        **dict(zip("ıɑɡʟօոսցհ", "iaglonugh", strict=True)),  # Latin, Armenian
    }
)


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


def email_key(email: str) -> str | None:
    """What an address in its normal form looks like, for telling twins; None when it is plain ASCII."""
    if email.isascii():
        return None
    return unicodedata.normalize("NFKC", email).casefold().replace("i\u0307", "i").translate(_LOOKALIKES)


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
        default=None,
        max_length=CODE_LENGTH,
        description="A one-time code or a recovery code. Ignored while an account has no second factor.",
    )
    cookie: bool = Field(
        default=False,
        description="For browsers: the refresh token comes in an HttpOnly cookie and not in the answer.",
    )


class RefreshIn(Schema):
    refresh_token: SecretStr | None = Field(
        default=None,
        max_length=REFRESH_TOKEN_LENGTH,
        description="Without it the one in the cookie is taken; the header `X-Requested-With: lectern` is needed then.",
    )


class TokensOut(Schema):
    """A bearer token for `expires_in` seconds, and what to get the next one with (null when it is in the cookie)."""

    access_token: str
    token_type: Literal["Bearer"] = "Bearer"  # noqa: S105 - the type of a token (RFC 6750), not a token
    expires_in: int
    refresh_token: str | None
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


class VerifyEmailIn(Schema):
    """The token of the link, or the address and the code of the letter."""

    token: SecretStr | None = Field(default=None, max_length=LETTER_TOKEN_LENGTH)
    email: str | None = Field(default=None, max_length=EMAIL_LENGTH)
    code: SecretStr | None = Field(default=None, max_length=CODE_LENGTH)

    @model_validator(mode="after")
    def _is_one_of_both(self) -> Self:
        by_token = self.token is not None and self.email is None and self.code is None
        by_code = self.token is None and self.email is not None and self.code is not None
        if not (by_token or by_code):
            raise ValueError("Give `token`, or `email` and `code`.")
        return self


class AddressIn(Schema):
    """An address of the past is not checked: one that is no address is answered like one that nobody has."""

    email: str = Field(max_length=EMAIL_LENGTH)


class NewAddressIn(Schema):
    email: Email


class TokenIn(Schema):
    token: SecretStr = Field(max_length=LETTER_TOKEN_LENGTH)


class ResetPasswordIn(TokenIn):
    password: NewPassword


class ChangePasswordIn(Schema):
    current_password: SecretStr = Field(max_length=PASSWORD_LENGTH)
    new_password: NewPassword


class SessionOut(Schema):
    """A login on some device."""

    id: UUID
    device: str = Field(description="The User-Agent of the login.")
    ip: str
    created_at: Timestamp
    last_used_at: Timestamp = Field(description="Exact to some minutes.")
    expires_at: Timestamp
    current: bool = Field(description="Whether it is the session that asks.")


class AccountOut(UserOut):
    """A user as administrators see them."""

    disabled: bool
    created_at: Timestamp


class AccountsQuery(PageQuery):
    q: str = Field(default="", max_length=200, description="Beginnings of words of the name or the address.")
    disabled: bool | None = Field(default=None, description="Only disabled accounts, or only the others.")


class AccountChange(Schema):
    role: SiteRole | None = None
    disabled: bool | None = None


class TotpOut(Schema):
    """What an authenticator app needs, in three forms. It is shown once."""

    secret: str = Field(description="Base32 (RFC 4648), to type in by hand.")
    uri: str = Field(description="`otpauth://…`, to open on the same device.")
    qr_svg: str = Field(description="The URI as an SVG image, to scan.")


class CodeIn(Schema):
    code: str = Field(max_length=CODE_LENGTH)


class RecoveryCodesOut(Schema):
    """Each code replaces the authenticator app once. They are shown only now."""

    recovery_codes: tuple[str, ...]


class SecondFactorOut(Schema):
    totp: bool
    recovery_codes_left: int


class StepUpIn(Schema):
    """An account with a second factor gives a code, any other its password."""

    password: SecretStr | None = Field(default=None, max_length=PASSWORD_LENGTH)
    totp: str | None = Field(default=None, max_length=CODE_LENGTH)
