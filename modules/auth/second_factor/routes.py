"""HTTP routes of the second factor and of step-up. What they show once is never cached."""

from __future__ import annotations

from aiohttp import hdrs

from modules.auth.errors import InvalidCredentials, NotConfirmed, SecondFactorExists, TotpRequired
from modules.auth.schemas import CodeIn, RecoveryCodesOut, SecondFactorOut, StepUpIn, TotpOut
from modules.auth.second_factor import service
from server.errors import NotFound, RateLimited
from server.gateway.endpoint import Call, endpoint, route


@endpoint(summary="Whether you have a second factor.")
async def get_second_factor(call: Call) -> SecondFactorOut:
    return SecondFactorOut.model_validate(await service.status(call.rt, call.actor), from_attributes=True)


@endpoint(summary="Begin to set up an authenticator app.", limit="login", errors=(NotConfirmed, SecondFactorExists))
async def begin_totp(call: Call) -> TotpOut:
    """Answers the secret as text, as a link and as a QR code. It is in force after `mfa/totp/confirm`.

    Needs a proof (login or step-up) of the last five minutes.
    """
    call.headers[hdrs.CACHE_CONTROL] = "no-store"
    return TotpOut.model_validate(await service.begin_totp(call.rt, call.actor), from_attributes=True)


@endpoint(
    summary="Confirm the authenticator app by a code of it.",
    limit="login",
    errors=(InvalidCredentials, NotConfirmed, NotFound, RateLimited),
)
async def confirm_totp(call: Call, body: CodeIn) -> RecoveryCodesOut:
    """Answers ten recovery codes, each good for one login without the app. Your other sessions end."""
    call.headers[hdrs.CACHE_CONTROL] = "no-store"
    return RecoveryCodesOut(recovery_codes=await service.confirm_totp(call.rt, call.actor, body.code))


@endpoint(summary="Remove your second factor.", limit="login", errors=(NotConfirmed, NotFound))
async def remove_totp(call: Call) -> None:
    """Needs a proof of the last five minutes: a login, or a step-up with a code."""
    await service.remove_totp(call.rt, call.actor)


@endpoint(summary="Replace your recovery codes.", limit="login", errors=(NotConfirmed, NotFound))
async def renew_recovery_codes(call: Call) -> RecoveryCodesOut:
    call.headers[hdrs.CACHE_CONTROL] = "no-store"
    return RecoveryCodesOut(recovery_codes=await service.renew_recovery_codes(call.rt, call.actor))


@endpoint(
    summary="Prove that it is you, for what is dangerous.",
    limit="login",
    errors=(InvalidCredentials, TotpRequired, RateLimited),
)
async def step_up(call: Call, body: StepUpIn) -> None:
    """Holds for this session for five minutes. Give `totp` if you have a second factor, `password` otherwise."""
    password = body.password.get_secret_value() if body.password is not None else None
    await service.step_up(call.rt, call.actor, password=password, totp=body.totp, ip=call.client_ip)


ROUTES = (
    route("GET", "/api/auth/mfa", get_second_factor),
    route("POST", "/api/auth/mfa/totp", begin_totp),
    route("POST", "/api/auth/mfa/totp/confirm", confirm_totp),
    route("DELETE", "/api/auth/mfa/totp", remove_totp),
    route("POST", "/api/auth/mfa/recovery-codes", renew_recovery_codes),
    route("POST", "/api/auth/step-up", step_up),
)
