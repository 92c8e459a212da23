from __future__ import annotations

import random
import time

import pytest
from argon2 import extract_parameters

from modules.auth.errors import WeakPassword
from modules.auth.passwords import hash_password, judge_password, verify_password
from server.settings import Auth, Settings


@pytest.fixture
def auth(settings: Settings) -> Auth:
    return settings.auth.model_copy(update={"argon2_time_cost": 1, "argon2_memory_kib": 64})


def test_hash_has_the_configured_cost_and_one_lane(auth: Auth) -> None:
    stored = hash_password(auth, "secret")
    parameters = extract_parameters(stored)
    assert stored.startswith("$argon2id$")
    assert (parameters.time_cost, parameters.memory_cost, parameters.parallelism) == (1, 64, 1)
    assert hash_password(auth, "secret") != stored


def test_only_the_password_itself_is_right(auth: Auth) -> None:
    stored = hash_password(auth, "secret")
    assert verify_password(auth, stored, "secret") == (True, None)
    assert verify_password(auth, stored, "Secret") == (False, None)
    assert verify_password(auth, stored, "") == (False, None)


def test_password_may_hold_any_character(auth: Auth) -> None:
    stored = hash_password(auth, "pässwört \x00 🔑")
    assert verify_password(auth, stored, "pässwört \x00 🔑")[0]
    assert not verify_password(auth, stored, "pässwört ")[0]


def test_password_is_the_same_from_every_keyboard(auth: Auth) -> None:
    assert verify_password(auth, hash_password(auth, "caf\u00e9"), "cafe\u0301")[0]


def test_right_password_is_hashed_again_when_the_cost_has_changed(auth: Auth) -> None:
    stored = hash_password(auth, "secret")
    dearer = auth.model_copy(update={"argon2_time_cost": 2})
    assert verify_password(dearer, stored, "wrong") == (False, None)
    right, renewed = verify_password(dearer, stored, "secret")
    assert right
    assert renewed is not None
    assert extract_parameters(renewed).time_cost == 2
    assert verify_password(dearer, renewed, "secret") == (True, None)


@pytest.mark.parametrize("stored", ["", "!", "$argon2id$v=19$m=64,t=1,p=1$broken", "$2b$12$abcdefghijklmnopqrstuv"])
def test_unusable_hash_matches_nothing(auth: Auth, stored: str) -> None:
    assert verify_password(auth, stored, "secret") == (False, None)


def test_unknown_account_costs_as_much_as_a_wrong_password(auth: Auth) -> None:
    slow = auth.model_copy(update={"argon2_time_cost": 4, "argon2_memory_kib": 8192})
    stored = hash_password(slow, "secret")

    def best(stored: str | None) -> float:
        return min(_seconds(slow, stored) for _ in range(5))

    assert best(None) > best(stored) / 2


def _seconds(auth: Auth, stored: str | None) -> float:
    started = time.perf_counter()
    assert verify_password(auth, stored, "wrong") == (False, None)
    return time.perf_counter() - started


def judged(auth: Auth, password: str, *about: str) -> str | None:
    """Why a new password is refused; None when it is taken."""
    try:
        judge_password(auth, password, about=about, field="new_password")
    except WeakPassword as refusal:
        (error,) = refusal.errors
        assert error.loc == ("new_password",)
        return error.message
    return None


@pytest.mark.parametrize(
    "password",
    ["password", "Password1!", "12345678", "iloveyou123", "classroom", "aaaaaaaaaaaaaaaaaaaaaaa", "abcdefgh1"],
)
def test_common_and_simple_passwords_are_refused(auth: Auth, password: str) -> None:
    assert judged(auth, password)


@pytest.mark.parametrize(
    "password",
    [
        "lectern-demo",
        "correct horse battery",
        "naïve Ümlaute 7",
        "李白乘舟将欲行忽",
        "x7#Kq!2vLm",
        "aaaaaaaa" + "vT9_qLp2-wZ4",
    ],
)
def test_passwords_that_are_hard_to_guess_are_taken(auth: Auth, password: str) -> None:
    assert judged(auth, password) is None


def test_words_about_the_owner_do_not_help(auth: Auth) -> None:
    strict = auth.model_copy(update={"password_min_score": 3})
    assert judged(strict, "lovelace1843", "ada@example.com", "Ada Lovelace")
    assert judged(auth, "ada@example.com", "ada@example.com")


def test_the_score_that_is_asked_for_is_a_setting(auth: Auth) -> None:
    assert judged(auth.model_copy(update={"password_min_score": 4}), "lectern-demo")
    assert judged(auth.model_copy(update={"password_min_score": 0}), "abcdefgh1") is None


def test_no_password_takes_long_to_judge(auth: Auth) -> None:
    worst = "".join(random.Random(7).choice("@4a8({[<3e6g9|1!i0o$5s+7t%2z") for _ in range(128))
    started = time.process_time()
    judged(auth, worst)
    assert time.process_time() - started < 0.5
