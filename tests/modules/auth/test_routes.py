from __future__ import annotations

import asyncio
from typing import Any

import jwt
import pytest
from aiohttp import ClientResponse, ClientSession

from modules.auth import User
from server.metrics import REGISTRY
from server.runtime import Runtime
from tests.modules.auth.conftest import EMAIL, PASSWORD

ADA = {"email": EMAIL, "password": PASSWORD}


async def post(http: ClientSession, path: str, body: Any = None, token: str | None = None) -> ClientResponse:
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    return await http.post(f"/api/auth/{path}", json=body, headers=headers)


async def me(http: ClientSession, token: str) -> ClientResponse:
    return await http.get("/api/auth/me", headers={"Authorization": f"Bearer {token}"})


async def login(http: ClientSession) -> dict[str, Any]:
    answer = await post(http, "login", ADA)
    assert answer.status == 200
    tokens: dict[str, Any] = await answer.json()
    return tokens


async def refusal(answer: ClientResponse) -> tuple[int, str]:
    body = await answer.json()
    return answer.status, body["code"]


async def test_register_then_login_then_me(http: ClientSession) -> None:
    before = REGISTRY.get_sample_value("user_registrations_total") or 0
    answer = await post(http, "register", {"email": "Eve@Example.com", "password": PASSWORD, "name": " Eve "})
    assert answer.status == 201
    user = (await answer.json())["user"]
    assert user == {
        "id": user["id"],
        "name": "Eve",
        "avatar_url": None,
        "email": "eve@example.com",
        "role": "user",
        "verified": False,
    }
    assert REGISTRY.get_sample_value("user_registrations_total") == before + 1
    answer = await post(http, "login", {"email": "eve@example.com", "password": PASSWORD, "totp": "123456"})
    tokens = await answer.json()
    assert answer.headers["Cache-Control"] == "no-store"
    assert set(tokens) == {"access_token", "token_type", "expires_in", "refresh_token", "user"}
    assert (tokens["token_type"], tokens["user"]) == ("Bearer", user)
    assert await (await me(http, tokens["access_token"])).json() == user


async def test_taken_address_is_a_conflict(http: ClientSession, ada: User) -> None:
    answer = await post(http, "register", {**ADA, "email": "ADA@EXAMPLE.COM", "name": "Ada"})
    assert await refusal(answer) == (409, "conflict")


async def test_every_invalid_field_is_named(http: ClientSession) -> None:
    answer = await post(http, "register", {"email": "a", "password": "short", "name": "\x00", "role": "admin"})
    assert await refusal(answer) == (422, "invalid")
    assert {error["loc"][0] for error in (await answer.json())["errors"]} == {"email", "password", "name", "role"}
    assert "short" not in await answer.text()


async def test_wrong_address_wrong_password_and_disabled_account_look_the_same(
    http: ClientSession, rt: Runtime, ada: User
) -> None:
    answers = [
        await post(http, "login", {**ADA, "password": "wrong"}),
        await post(http, "login", {**ADA, "email": "nobody@example.com"}),
        await post(http, "login", {**ADA, "email": "nonsense"}),
    ]
    async with rt.database.connection() as conn:
        await conn.execute("UPDATE users SET disabled_at = now() WHERE id = $1", ada.id)
    answers.append(await post(http, "login", ADA))
    bodies = [await answer.json() for answer in answers]
    assert {body["code"] for body in bodies} == {"invalid_credentials"}
    assert len({(answer.status, body["detail"]) for answer, body in zip(answers, bodies, strict=True)}) == 1


async def test_password_that_is_too_long_is_never_hashed(http: ClientSession, ada: User) -> None:
    assert await refusal(await post(http, "login", {**ADA, "password": "x" * 129})) == (422, "invalid")


async def test_login_survives_a_strange_user_agent(http: ClientSession, ada: User) -> None:
    answer = await http.post("/api/auth/login", json=ADA, headers={"User-Agent": "\udcff\udc80 \u202e" + "x" * 999})
    assert answer.status == 200


async def test_refresh_answers_like_login(http: ClientSession, ada: User) -> None:
    first = await login(http)
    answer = await post(http, "refresh", {"refresh_token": first["refresh_token"]})
    second = await answer.json()
    assert answer.status == 200
    assert answer.headers["Cache-Control"] == "no-store"
    assert set(second) == set(first)
    assert second["refresh_token"] != first["refresh_token"]
    assert second["user"] == first["user"]
    assert (await me(http, second["access_token"])).status == 200


async def test_reused_token_says_so_and_ends_the_session(http: ClientSession, ada: User) -> None:
    first = await login(http)
    second = await (await post(http, "refresh", {"refresh_token": first["refresh_token"]})).json()
    third = second
    for _ in range(12):  # more than anybody does within the grace
        third = await (await post(http, "refresh", {"refresh_token": third["refresh_token"]})).json()
    answer = await post(http, "refresh", {"refresh_token": first["refresh_token"]})
    assert await refusal(answer) == (401, "refresh_reused")
    answer = await post(http, "refresh", {"refresh_token": third["refresh_token"]})
    assert await refusal(answer) == (401, "unauthenticated")
    assert await refusal(await me(http, third["access_token"])) == (401, "unauthenticated")


@pytest.mark.parametrize("token", ["", "x", "a.b.c", "\x00"])
async def test_garbage_is_no_refresh_token(http: ClientSession, token: str) -> None:
    assert await refusal(await post(http, "refresh", {"refresh_token": token})) == (401, "unauthenticated")


@pytest.mark.parametrize("path", ["logout", "logout-all"])
async def test_logout_ends_the_session(http: ClientSession, ada: User, path: str) -> None:
    tokens = await login(http)
    answer = await post(http, path, token=tokens["access_token"])
    assert (answer.status, await answer.read()) == (204, b"")
    assert await refusal(await me(http, tokens["access_token"])) == (401, "unauthenticated")
    answer = await post(http, "refresh", {"refresh_token": tokens["refresh_token"]})
    assert await refusal(answer) == (401, "unauthenticated")


@pytest.mark.parametrize(("method", "path"), [("GET", "me"), ("POST", "logout"), ("POST", "logout-all")])
async def test_private_routes_need_a_token(http: ClientSession, method: str, path: str) -> None:
    for headers in ({}, {"Authorization": "Bearer x"}, {"Authorization": "Basic YTpi"}):
        answer = await http.request(method, f"/api/auth/{path}", headers=headers)
        assert await refusal(answer) == (401, "unauthenticated")


async def test_refresh_token_is_no_access_token(http: ClientSession, ada: User) -> None:
    tokens = await login(http)
    assert await refusal(await me(http, tokens["refresh_token"])) == (401, "unauthenticated")
    answer = await post(http, "refresh", {"refresh_token": tokens["access_token"]})
    assert answer.status in (401, 422)


async def test_published_keys_verify_our_tokens(http: ClientSession, rt: Runtime, ada: User) -> None:
    token = (await login(http))["access_token"]
    answer = await http.get("/api/auth/.well-known/jwks.json")
    key = jwt.PyJWKSet.from_dict(await answer.json())[jwt.get_unverified_header(token)["kid"]]
    issuer = rt.settings.auth.issuer
    claims = jwt.decode(token, key, algorithms=["EdDSA"], audience=issuer, issuer=issuer)
    assert claims["sub"] == str(ada.id)


async def test_weak_password_is_refused_and_the_reason_told(http: ClientSession) -> None:
    for password in ("password123", "qwertyuiop", "aaaaaaaaaaaa", "eve@example.com"):
        answer = await post(http, "register", {"email": "eve@example.com", "password": password, "name": "Eve"})
        assert await refusal(answer) == (422, "invalid"), password
        (error,) = (await answer.json())["errors"]
        assert error["loc"] == ["password"]
        assert "Take several words" in error["message"]


async def test_twins_of_an_address_are_one_account(http: ClientSession) -> None:
    twins = [f"pay{letter}@example.com" for letter in ("é", "e\u0301")] + [
        "аpple@example.com",
        "\uff41pple@example.com",
    ]
    await post(http, "register", {"email": "apple@example.com", "password": PASSWORD, "name": "A"})
    seen = []
    for email in twins:
        answer = await post(http, "register", {"email": email, "password": PASSWORD, "name": "B"})
        seen.append(answer.status)
    assert seen[:2] == [201, 409]
    assert seen[2:] == [409, 409]


async def test_change_of_password_ends_the_other_sessions(http: ClientSession, ada: User) -> None:
    first, second = await login(http), await login(http)
    body = {"current_password": PASSWORD, "new_password": "something else entirely"}
    wrong = await post(http, "password/change", {**body, "current_password": "wrong"}, first["access_token"])
    assert await refusal(wrong) == (401, "invalid_credentials")
    weak = await post(http, "password/change", {**body, "new_password": "password1"}, first["access_token"])
    assert (await weak.json())["errors"][0]["loc"] == ["new_password"]
    assert (await post(http, "password/change", body, first["access_token"])).status == 204
    assert (await me(http, first["access_token"])).status == 200
    assert (await me(http, second["access_token"])).status == 401
    assert await refusal(await post(http, "login", ADA)) == (401, "invalid_credentials")
    assert (await post(http, "login", {**ADA, "password": body["new_password"]})).status == 200


async def test_two_changes_of_password_at_once_have_one_effect(http: ClientSession, ada: User) -> None:
    token = (await login(http))["access_token"]
    bodies = [{"current_password": PASSWORD, "new_password": f"another password {n}"} for n in "xy"]
    answers = await asyncio.gather(*(post(http, "password/change", body, token) for body in bodies))
    assert sorted(answer.status for answer in answers) in ([204, 401], [204, 409])


async def test_sessions_are_listed_and_ended_one_by_one(http: ClientSession, ada: User) -> None:
    agent = {"User-Agent": "Laptop"}
    laptop = await (await http.post("/api/auth/login", json=ADA, headers=agent)).json()
    phone = await login(http)
    bearer = {"Authorization": f"Bearer {phone['access_token']}"}
    listed = (await (await http.get("/api/auth/sessions", headers=bearer)).json())["items"]
    assert [item["current"] for item in listed].count(True) == 1
    (other,) = [item for item in listed if not item["current"]]
    assert (other["device"], other["ip"]) == ("Laptop", "127.0.0.1")
    path = f"/api/auth/sessions/{other['id']}"
    assert await (await http.get(path, headers=bearer)).json() == other
    assert (await http.delete(path, headers=bearer)).status == 204
    for method in ("GET", "DELETE"):
        assert await refusal(await http.request(method, path, headers=bearer)) == (404, "not_found")
    assert (await me(http, laptop["access_token"])).status == 401
    assert (await me(http, phone["access_token"])).status == 200


async def test_nobody_ends_the_session_of_somebody_else(http: ClientSession, ada: User) -> None:
    await post(http, "register", {"email": "eve@example.com", "password": PASSWORD, "name": "Eve"})
    mine = await login(http)
    eve = await (await post(http, "login", {"email": "eve@example.com", "password": PASSWORD})).json()
    bearer = {"Authorization": f"Bearer {mine['access_token']}"}
    (session,) = (await (await http.get("/api/auth/sessions", headers=bearer)).json())["items"]
    stranger = {"Authorization": f"Bearer {eve['access_token']}"}
    for method in ("GET", "DELETE"):
        answer = await http.request(method, f"/api/auth/sessions/{session['id']}", headers=stranger)
        assert await refusal(answer) == (404, "not_found")
    assert (await me(http, mine["access_token"])).status == 200


async def test_all_other_sessions_end_at_once(http: ClientSession, ada: User) -> None:
    first, second, third = [await login(http) for _ in range(3)]
    answer = await http.delete("/api/auth/sessions", headers={"Authorization": f"Bearer {first['access_token']}"})
    assert answer.status == 204
    assert [(await me(http, tokens["access_token"])).status for tokens in (first, second, third)] == [200, 401, 401]


async def test_refresh_token_can_live_in_a_cookie(http: ClientSession, ada: User) -> None:
    answer = await post(http, "login", {**ADA, "cookie": True})
    assert (await answer.json())["refresh_token"] is None
    cookie = answer.headers["Set-Cookie"]
    for part in ("HttpOnly", "SameSite=Strict", "Path=/api/auth", "Max-Age=2592000"):
        assert part in cookie
    value = answer.cookies["lectern_refresh"].value
    headers = {"Cookie": f"lectern_refresh={value}", "X-Requested-With": "lectern"}
    renewed = await http.post("/api/auth/refresh", headers=headers)
    tokens = await renewed.json()
    assert (renewed.status, tokens["refresh_token"]) == (200, None)
    assert renewed.cookies["lectern_refresh"].value not in ("", value)
    headers["Authorization"] = f"Bearer {tokens['access_token']}"
    out = await http.post("/api/auth/logout", headers=headers)
    assert (out.status, out.cookies["lectern_refresh"].value) == (204, "")


async def test_cookie_alone_is_not_believed(http: ClientSession, ada: User) -> None:
    answer = await post(http, "login", {**ADA, "cookie": True})
    cookie = {"Cookie": f"lectern_refresh={answer.cookies['lectern_refresh'].value}"}
    ours = {"X-Requested-With": "lectern"}
    for headers in (cookie, {**cookie, "X-Requested-With": "x"}, {**cookie, **ours, "Sec-Fetch-Site": "cross-site"}):
        assert await refusal(await http.post("/api/auth/refresh", headers=headers)) == (403, "forbidden")
    nothing = await http.post("/api/auth/refresh", headers=ours)
    assert await refusal(nothing) == (401, "unauthenticated")
    assert (await http.post("/api/auth/refresh", headers={**cookie, **ours})).status == 200


async def test_five_wrong_passwords_stop_this_address_only(http: ClientSession, ada: User) -> None:
    wrong = {**ADA, "password": "wrong"}
    assert [(await post(http, "login", wrong)).status for _ in range(6)] == [401] * 5 + [429]
    refused = await post(http, "login", ADA)
    assert refused.status == 429
    assert 0 < int(refused.headers["Retry-After"]) <= 900
    assert (await post(http, "login", {**ADA, "email": "teacher@example.com"})).status == 401
