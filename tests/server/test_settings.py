"""Configuration: one home for each default, and one clear line for each mistake."""

import subprocess
import sys
import tomllib

import pytest

from server.settings import DEFAULTS, ROOT, ConfigurationError, Section, Settings, load_settings, planted_bugs

SECRET = "s" * 32


def test_every_key_has_its_one_default_in_the_file():
    text = DEFAULTS.read_text()
    defaults = tomllib.loads(text)
    for name, field in Settings.model_fields.items():
        section = field.annotation
        if isinstance(section, type) and issubclass(section, Section):
            assert set(defaults[name]) == set(section.model_fields), name
            assert all(field.is_required() for field in section.model_fields.values()), "a second home for a default"
        else:
            assert name in defaults


def test_overlay_and_environment_win_over_the_defaults_in_this_order(tmp_path, monkeypatch):
    overlay = tmp_path / "school.toml"
    overlay.write_text('[http]\nport = 9001\nhost = "0.0.0.0"\n')
    monkeypatch.setenv("LECTERN_CONFIG", str(overlay))
    monkeypatch.setenv("LECTERN_HTTP__PORT", "9002")
    settings = load_settings(secret=SECRET)
    assert (settings.http.port, settings.http.host) == (9002, "0.0.0.0")
    assert settings.http.body_limit == 1048576


@pytest.mark.parametrize(
    ("variables", "message"),
    [
        ({"LECTERN_HTP__PORT": "1"}, "unknown configuration variable LECTERN_HTP__PORT"),
        ({"LECTERN_HTTP__PROT": "1"}, "unknown configuration variable LECTERN_HTTP__PROT"),
        ({"LECTERN_HTTP__PORT": "x"}, "http.port"),
        ({"LECTERN_HTTP__PORT": "70000"}, "http.port"),
        ({"LECTERN_HTTP__CORS_ORIGINS": "not json"}, "written as JSON"),
        ({"LECTERN_HTTP__TRUSTED_PROXIES": '["10.0.0.0/99"]'}, "http.trusted_proxies"),
        ({"LECTERN_CONFIG": "/nowhere.toml"}, "no such file"),
        ({"LECTERN_ENVIRONMENT": "production"}, "secret: must be set in production"),
        ({"LECTERN_SECRET": "short"}, "secret"),
        (
            {"LECTERN_ENVIRONMENT": "production", "LECTERN_SECRET": SECRET, "LECTERN_PLANTED_BUGS": "any"},
            "refused in production",
        ),
    ],
)
def test_a_mistake_is_one_line_and_names_the_key(monkeypatch, tmp_path, variables, message):
    monkeypatch.chdir(tmp_path)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(ConfigurationError) as caught:
        load_settings()
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_an_unknown_key_in_a_file_is_refused(monkeypatch, tmp_path):
    overlay = tmp_path / "typo.toml"
    overlay.write_text("[http]\nprot = 1\n")
    monkeypatch.setenv("LECTERN_CONFIG", str(overlay))
    with pytest.raises(ConfigurationError, match=r"http\.prot"):
        load_settings(secret=SECRET)


def test_a_secret_is_made_once_and_kept_from_others(tmp_path):
    first = load_settings(data_dir=tmp_path)
    assert load_settings(data_dir=tmp_path).secret == first.secret
    assert (tmp_path / "secret").stat().st_mode & 0o077 == 0
    assert [path.name for path in tmp_path.iterdir()] == ["secret"]


def test_planted_bugs_are_off_unless_named(monkeypatch):
    monkeypatch.delenv("LECTERN_PLANTED_BUGS", raising=False)
    assert planted_bugs() == frozenset()
    monkeypatch.setenv("LECTERN_PLANTED_BUGS", "one,two")
    assert planted_bugs() == {"one", "two"}


@pytest.mark.parametrize(
    ("arguments", "variables", "message"),
    [
        (["serve"], {}, "database.url must be set"),
        (["config"], {"LECTERN_NOTHING": "1"}, "unknown configuration variable"),
        (
            ["serve"],
            {"LECTERN_DATABASE__URL": "postgresql://x@127.0.0.1:1/x", "LECTERN_REDIS__URL": "redis://127.0.0.1:1"},
            "PostgreSQL cannot be reached",
        ),
    ],
)
def test_the_command_line_says_it_in_one_line_and_exits_with_2(tmp_path, arguments, variables, message):
    environment = {"PATH": "/usr/bin:/bin", "LECTERN_DATA_DIR": str(tmp_path), **variables}
    done = subprocess.run(
        [sys.executable, "-m", "server", *arguments], cwd=ROOT, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 2
    assert message in done.stderr
    assert done.stderr.count("\n") == 1
