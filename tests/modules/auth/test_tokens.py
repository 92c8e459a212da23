from __future__ import annotations

import base64
import json
from typing import Any
from uuid import UUID, uuid4

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from modules.auth import tokens
from modules.auth.tokens import Keyring, parse_refresh_token
from server.errors import SessionExpired, Unauthenticated

SECRET, OTHER_SECRET = "s" * 40, "o" * 40
NOW = 1_800_000_000.5
LIFETIME = 600
USER, SESSION, TOKEN_ID = (UUID(int=0xABCDEF << 100 | number) for number in range(3))
SALT = bytes(range(16))


def make_keyring(*secrets: str, issuer: str = "lectern") -> Keyring:
    return Keyring(secrets or (SECRET,), issuer, LIFETIME)


def signed(keys: Keyring, now: float = NOW) -> str:
    return keys.sign(user_id=USER, session_id=SESSION, token_id=TOKEN_ID, now=now)


def forged(header: dict[str, Any] | None = None, key: Any = None, algorithm: str = "EdDSA", **changes: Any) -> str:
    """A token like ours with changes; a claim of None is left out. Signed with our key unless another is given."""
    genuine = make_keyring()
    claims = {**jwt.decode(signed(genuine), options={"verify_signature": False}), **changes}
    claims = {name: value for name, value in claims.items() if value is not None}
    header = {**jwt.get_unverified_header(signed(genuine)), **(header or {})}
    header.pop("alg")
    key = genuine._signer if key is None else key
    # PyJWS and not PyJWT, which would refuse to write some of the claims.
    return jwt.PyJWS().encode(json.dumps(claims).encode(), key, algorithm=algorithm, headers=header)


def refused(token: str, now: float = NOW) -> None:
    with pytest.raises(Unauthenticated):
        make_keyring().verify(token, now=now)


def test_token_says_who_signed_in_until_when() -> None:
    claims = make_keyring().verify(signed(make_keyring()), now=NOW)
    assert (claims.sub, claims.sid, claims.jti) == (USER, SESSION, TOKEN_ID.hex)
    assert (claims.iat, claims.exp) == (1_800_000_000, 1_800_000_600)


def test_header_is_that_of_rfc_9068() -> None:
    keys = make_keyring()
    (kid,) = keys.public_keys
    assert jwt.get_unverified_header(signed(keys)) == {"typ": "at+jwt", "alg": "EdDSA", "kid": kid}


def test_replicas_with_the_same_secret_have_the_same_keys() -> None:
    assert list(make_keyring().public_keys) == list(make_keyring().public_keys)
    assert list(make_keyring().public_keys) != list(make_keyring(OTHER_SECRET).public_keys)


def test_token_ends_when_its_time_is_over() -> None:
    keys = make_keyring()
    token = signed(keys)
    keys.verify(token, now=NOW + LIFETIME - 1)
    with pytest.raises(SessionExpired):
        keys.verify(token, now=NOW + LIFETIME)


def test_token_from_the_future_is_refused_beyond_the_leeway() -> None:
    make_keyring().verify(signed(make_keyring(), now=NOW + 4), now=NOW)
    refused(signed(make_keyring(), now=NOW + 7))


def test_older_secret_verifies_and_never_signs() -> None:
    old, new = signed(make_keyring(OTHER_SECRET)), make_keyring(SECRET, OTHER_SECRET)
    assert new.verify(old, now=NOW).sub == USER
    make_keyring(SECRET).verify(signed(new), now=NOW)
    refused(old)


@pytest.mark.parametrize("claim", ["iss", "aud", "sub", "sid", "jti", "iat", "exp", "typ"])
def test_every_claim_is_needed(claim: str) -> None:
    nothing: dict[str, Any] = {claim: None}
    refused(forged(**nothing))


@pytest.mark.parametrize(
    "changes",
    [
        {"iss": "somebody"},
        {"iss": "lect"},
        {"iss": ["lectern"]},
        {"aud": "somebody"},
        {"aud": ["lectern"]},
        {"sub": "not-an-id"},
        {"sub": 1},
        {"sid": "not-an-id"},
        {"sid": {}},
        {"jti": 1},
        {"typ": "refresh"},
        {"exp": 10**400},
        {"exp": 1_800_000_000 + 86_400},
        {"exp": 1_800_000_000},
        {"exp": 1_799_999_000},
        {"exp": "1800000600"},
        {"exp": 1_800_000_600.5},
        {"exp": True},
        {"iat": -(10**400)},
        {"iat": "1800000000"},
        {"nbf": 9_000_000_000},
    ],
)
def test_wrong_claim_is_refused_although_signed(changes: dict[str, Any]) -> None:
    forged_token = forged(**changes)
    refused(forged_token)
    refused(forged_token)


@pytest.mark.parametrize(
    "header",
    [
        {"kid": "unknown"},
        {"kid": None},
        {"typ": "JWT"},
        {"crit": ["exp"]},
        {"jku": "https://example.com/keys"},
        {"jwk": {"kty": "OKP", "crv": "Ed25519", "x": "AAAA"}},
        {"x5u": "https://example.com/cert"},
    ],
)
def test_header_other_than_ours_is_refused(header: dict[str, Any]) -> None:
    segments = forged().split(".")
    genuine = json.loads(base64.urlsafe_b64decode(segments[0] + "=="))
    segments[0] = tokens.base64url(json.dumps({**genuine, **header}).encode())
    refused(".".join(segments))


def test_forgery_helper_makes_valid_tokens() -> None:
    """Otherwise the refusals above would prove nothing."""
    assert make_keyring().verify(forged(), now=NOW).sub == USER


def test_other_algorithms_and_keys_are_refused() -> None:
    keys = make_keyring()
    (public,) = keys.public_keys.values()
    refused(forged(key="", algorithm="none"))
    refused(forged(key=public.public_bytes_raw(), algorithm="HS256"))
    refused(forged(key=SECRET, algorithm="HS256"))
    refused(forged(key=Ed25519PrivateKey.generate()))
    header, claims, signature = signed(keys).split(".")
    unsigned = tokens.base64url(b'{"alg":"none","typ":"at+jwt"}')
    refused(f"{unsigned}.{claims}.")
    refused(f"{header}.{claims}.")
    refused(f"{header}.{claims}.{signature[:-8]}AAAAAAAA")


@pytest.mark.parametrize(
    "token",
    [
        "",
        ".",
        "..",
        "a.b.c",
        "....",
        "\x00",
        "ü.b.c",
        "\udcff",
        "x" * 5000,
        tokens.base64url(b"[" * 2900) + ".a.b",
        tokens.base64url(b'{"alg":' + b"9" * 2900 + b"}") + ".a.b",
    ],
)
def test_garbage_is_refused(token: str) -> None:
    refused(token)


def test_every_changed_character_is_noticed() -> None:
    keys = make_keyring()
    token = signed(keys)
    end = len(token) - 1  # the last character of a signature holds spare bits
    for place in range(0, end, 7):
        other = "A" if token[place] != "A" else "B"
        with pytest.raises(Unauthenticated):
            keys.verify(token[:place] + other + token[place + 1 :], now=NOW)


def test_too_long_token_is_refused_before_it_is_parsed() -> None:
    long = forged(extra="x" * 4096)
    assert len(long) > tokens.TOKEN_LENGTH
    refused(long)


def test_remembered_tokens_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tokens, "REMEMBERED_TOKENS", 3)
    keys = make_keyring()
    for second in range(10):
        keys.verify(signed(keys, now=NOW + second), now=NOW + second)
    assert len(keys._verified) == 3


def test_refused_tokens_are_not_remembered() -> None:
    keys = make_keyring()
    with pytest.raises(Unauthenticated):
        keys.verify(forged(typ="refresh"), now=NOW)
    assert not keys._verified


def test_refresh_token_is_always_the_same_and_names_its_session_and_generation() -> None:
    token = make_keyring().refresh_token(SESSION, 7, SALT)
    assert token == make_keyring().refresh_token(SESSION, 7, SALT)
    parsed = parse_refresh_token(token)
    assert (parsed.session_id, parsed.generation) == (SESSION, 7)
    assert make_keyring().is_genuine(parsed, SALT)


def test_refresh_token_is_bound_to_session_generation_salt_and_secret() -> None:
    token = make_keyring().refresh_token(SESSION, 7, SALT)
    session, generation, mac = token.split(".")
    for other in (f"{uuid4().hex}.{generation}.{mac}", f"{session}.8.{mac}", f"{session}.7.{'A' * 43}"):
        assert not make_keyring().is_genuine(parse_refresh_token(other), SALT)
    assert not make_keyring().is_genuine(parse_refresh_token(token), bytes(16))
    assert not make_keyring(OTHER_SECRET).is_genuine(parse_refresh_token(token), SALT)
    assert make_keyring(OTHER_SECRET, SECRET).is_genuine(parse_refresh_token(token), SALT)


@pytest.mark.parametrize(
    "token",
    [
        "",
        "..",
        f"{SESSION}.1.{'A' * 43}",
        f"{SESSION.hex.upper()}.1.{'A' * 43}"
        if SESSION.hex.upper() != SESSION.hex
        else f"{UUID(int=10).hex.upper()}.1.{'A' * 43}",
        f"{SESSION.hex}.0.{'A' * 43}",
        f"{SESSION.hex}.01.{'A' * 43}",
        f"{SESSION.hex}.-1.{'A' * 43}",
        f"{SESSION.hex}.{'9' * 11}.{'A' * 43}",
        f"{SESSION.hex}.1.{'A' * 42}",
        f"{SESSION.hex}.1.{'A' * 42}=",
        f"{SESSION.hex}.1.{'A' * 43}\n",
        f"{SESSION.hex}.\u0661.{'A' * 43}",
    ],
)
def test_what_is_no_refresh_token_is_refused(token: str) -> None:
    with pytest.raises(Unauthenticated):
        parse_refresh_token(token)
