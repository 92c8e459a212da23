"""HTTP routes of letters. Whoever asks for one learns nothing about the address; only a POST uses a token."""

from __future__ import annotations

from modules.auth.errors import EmailTaken, NotConfirmed, TokenInvalid, WeakPassword
from modules.auth.letters import service
from modules.auth.schemas import AddressIn, NewAddressIn, ResetPasswordIn, TokenIn, VerifyEmailIn
from server.errors import RateLimited
from server.gateway.endpoint import Call, endpoint, route


@endpoint(
    summary="Verify an e-mail address by the token or the code of a letter.",
    public=True,
    limit="login",
    errors=(TokenInvalid, RateLimited),
)
async def verify_email(call: Call, body: VerifyEmailIn) -> None:
    """Give `token`, or `email` and `code`. Each letter takes five tries at its code."""
    if body.token is not None:
        await service.verify_email(call.rt, body.token.get_secret_value())
    elif body.email is not None and body.code is not None:
        code = body.code.get_secret_value()
        await service.verify_email_by_code(call.rt, body.email, code, ip=call.client_ip)


@endpoint(summary="Ask for another letter that verifies an address.", public=True, status=202, limit="mail")
async def request_verification(call: Call, body: AddressIn) -> None:
    """The answer is the same whether or not there is an account that waits for it."""
    await service.request_verification(call.rt, body.email)


@endpoint(summary="Ask for a letter to set a new password.", public=True, status=202, limit="mail")
async def forgot_password(call: Call, body: AddressIn) -> None:
    """The answer, and the time it takes, are the same whether or not there is an account."""
    await service.forgot_password(call.rt, body.email)


@endpoint(
    summary="Set a new password with the token of a letter.",
    public=True,
    limit="login",
    errors=(TokenInvalid, WeakPassword),
)
async def reset_password(call: Call, body: ResetPasswordIn) -> None:
    """The token works once, for 30 minutes by default. All sessions of the account end; a second factor stays."""
    token, password = body.token.get_secret_value(), body.password.get_secret_value()
    await service.reset_password(call.rt, token=token, password=password)


@endpoint(summary="Ask to change your e-mail address.", status=202, limit="mail", errors=(NotConfirmed,))
async def change_email(call: Call, body: NewAddressIn) -> None:
    """A letter goes to the new address; the account has it as soon as the token of that letter comes back.

    Needs a proof (login or step-up) of the last five minutes.
    """
    await service.request_email_change(call.rt, call.actor, body.email)


@endpoint(
    summary="Confirm a new e-mail address by the token of a letter.",
    public=True,
    limit="login",
    errors=(TokenInvalid, EmailTaken),
)
async def confirm_email(call: Call, body: TokenIn) -> None:
    await service.confirm_email_change(call.rt, body.token.get_secret_value())


ROUTES = (
    route("POST", "/api/auth/verify-email", verify_email),
    route("POST", "/api/auth/verify-email/resend", request_verification),
    route("POST", "/api/auth/password/forgot", forgot_password),
    route("POST", "/api/auth/password/reset", reset_password),
    route("POST", "/api/auth/email/change", change_email),
    route("POST", "/api/auth/email/confirm", confirm_email),
)
