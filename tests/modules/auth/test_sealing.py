from __future__ import annotations

from uuid import UUID

import pytest

from modules.auth import sealing
from server.settings import Settings

OWNER, OTHER = UUID(int=1), UUID(int=2)


@pytest.fixture
def changed(settings: Settings) -> Settings:
    """The installation after its secret was replaced."""
    return settings.model_copy(update={"secret": "n" * 40, "previous_secrets": (settings.secret,)})


def test_token_of_a_letter_is_always_the_same_and_nobody_elses(settings: Settings, changed: Settings) -> None:
    token = sealing.letter_token(settings, OWNER)
    assert token == sealing.letter_token(settings, OWNER)
    assert len({token, sealing.letter_token(settings, OTHER), sealing.letter_token(changed, OWNER)}) == 3


def test_code_of_a_letter_has_six_digits_and_outlives_a_change_of_the_secret(
    settings: Settings, changed: Settings
) -> None:
    for number in range(50):
        code = sealing.letter_code(settings, UUID(int=number))
        assert len(code) == 6
        assert code.isdigit()
        assert sealing.is_code_of(changed, UUID(int=number), code)
    assert not sealing.is_code_of(settings, OWNER, "")
    assert not sealing.is_code_of(settings, OWNER, "١٢٣٤٥٦")


def test_sealed_secret_is_read_by_its_owner_only(settings: Settings, changed: Settings) -> None:
    sealed = sealing.seal(settings, b"secret", OWNER)
    assert sealing.unseal(settings, sealed, OWNER) == (b"secret", True)
    assert sealing.unseal(changed, sealed, OWNER) == (b"secret", False)
    forgotten = changed.model_copy(update={"previous_secrets": ()})
    assert sealing.unseal(settings, sealed, OTHER) is None
    assert sealing.unseal(forgotten, sealed, OWNER) is None
    assert sealing.unseal(settings, sealed[:-1] + bytes([sealed[-1] ^ 1]), OWNER) is None
    assert sealing.seal(settings, b"secret", OWNER) != sealed


def test_recovery_codes_differ_and_are_readable() -> None:
    codes = sealing.new_recovery_codes()
    assert len(set(codes)) == sealing.RECOVERY_CODES
    assert all(len(code) == 19 and code.count("-") == 3 for code in codes)
    digest = sealing.recovery_digest(OWNER, codes[0])
    assert digest == sealing.recovery_digest(OWNER, f" {codes[0].upper().replace('-', ' ')}")
    assert digest != sealing.recovery_digest(OTHER, codes[0])
