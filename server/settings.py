"""Settings: one frozen, typed tree, read once at start from files and the environment.

`config/default.toml` holds every default, so that a key has one home; `LECTERN_CONFIG` names a file that overlays it,
and `LECTERN_<SECTION>__<KEY>` sets one key. This is the only file that reads the environment.
"""

from __future__ import annotations

import os
import re
import secrets
from collections.abc import Mapping
from contextlib import suppress
from ipaddress import ip_network
from pathlib import Path
from typing import Any, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator
from pydantic_settings import (
    BaseSettings,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    SettingsError,
    TomlConfigSettingsSource,
)

ROOT = Path(__file__).resolve().parent.parent
DEFAULTS = ROOT / "config" / "default.toml"
PREFIX = "LECTERN_"
OVERLAY = "LECTERN_CONFIG"
# Test-only switches of the fault harness (GUARANTEES.md): never settings, refused in production.
PLANTED_BUGS = "LECTERN_PLANTED_BUGS"
FOR_TESTS = "LECTERN_TEST_"  # what the test run is told about its machine; no settings either
SECRET_LENGTH = 32  # characters


class ConfigurationError(Exception):
    """The configuration cannot be used; the message is one line for the operator."""


class Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Http(Section):
    host: str
    port: int = Field(ge=0, le=65535)
    public_url: str
    trusted_proxies: tuple[str, ...]
    cors_origins: tuple[str, ...]
    replica_ports: tuple[int, ...]
    body_limit: int = Field(gt=0)
    request_timeout: float = Field(gt=0)
    body_timeout: float = Field(gt=0)
    body_rate: int = Field(gt=0)
    keepalive_timeout: float = Field(gt=0)
    drain_timeout: float = Field(gt=0)

    @field_validator("trusted_proxies")
    @classmethod
    def _are_networks(cls, proxies: tuple[str, ...]) -> tuple[str, ...]:
        for proxy in proxies:
            ip_network(proxy, strict=False)  # its ValueError names the entry
        return proxies


class LimitGroup(Section):
    """How often, and how many at once, one group of routes may be called; 0 means: not limited."""

    window: float = Field(gt=0)
    per_user: int = Field(ge=0)
    per_address: int = Field(ge=0)
    block: int = Field(ge=1)
    at_once: int = Field(ge=0)


class Limits(Section):
    login_failures: int = Field(gt=0)
    login_failures_per_address: int = Field(gt=0)
    login_window: float = Field(gt=0)
    at_once: int = Field(gt=0)
    shed_lag: float = Field(gt=0)
    groups: Mapping[str, LimitGroup]


class Database(Section):
    url: str
    pool_size: int = Field(ge=4)
    acquire_timeout: float = Field(gt=0)
    connect_timeout: float = Field(gt=0)
    statement_timeout: float = Field(gt=0)
    lock_timeout: float = Field(gt=0)


class Redis(Section):
    url: str
    pool_size: int = Field(ge=4)
    timeout: float = Field(gt=0)
    prefix: str = Field(min_length=1)


class Broker(Section):
    url: str


class Objects(Section):
    url: str


class Smtp(Section):
    url: str
    sender: str = Field(pattern=r"^[^\x00-\x1f\x7f]*[^\s@]+@[^\s@]+$")
    timeout: float = Field(gt=0)
    ca_file: str

    @field_validator("url")
    @classmethod
    def _is_mail_server(cls, url: str) -> str:
        if url and not re.match(r"smtps?://[^/?#\s]+", url):
            raise ValueError("give smtp://host:port or smtps://host:port")
        return url


class Auth(Section):
    issuer: str = Field(min_length=1)
    access_token_seconds: int = Field(gt=0, le=3600)
    refresh_token_seconds: int = Field(gt=0)
    refresh_grace_seconds: float = Field(ge=0)
    argon2_time_cost: int = Field(ge=1)
    argon2_memory_kib: int = Field(ge=8)
    argon2_queue: int = Field(ge=1)
    require_verification: bool
    password_min_score: int = Field(ge=0, le=4)
    email_token_seconds: int = Field(gt=0)
    verification_seconds: int = Field(gt=0)
    step_up_seconds: int = Field(gt=0)
    session_retention_seconds: int = Field(ge=0)
    refresh_cookie: str = Field(pattern=r"^[A-Za-z0-9_-]+$")


class Realtime(Section):
    ping_interval: float = Field(gt=0)
    ping_timeout: float = Field(gt=0)
    connect_timeout: float = Field(gt=0)
    command_timeout: float = Field(gt=0)
    max_packet_bytes: int = Field(gt=0)
    max_event_bytes: int = Field(gt=0, le=65536)
    max_queued_commands: int = Field(gt=0)
    max_pending_bytes: int = Field(gt=0)
    max_pending_seconds: float = Field(gt=0)
    rooms_per_connection: int = Field(gt=0)
    connections_per_user: int = Field(gt=0)
    unconnected_limit: int = Field(gt=0)
    unconnected_per_address: int = Field(gt=0)
    join_limit: int = Field(gt=0)
    gap_wait: float = Field(ge=0)
    linger: float = Field(ge=0)
    head_interval: float = Field(gt=0)
    head_interval_degraded: float = Field(gt=0)
    presence_lease: float = Field(gt=0)
    presence_interval: float = Field(gt=0)
    presence_detail_limit: int = Field(ge=0)


class Chat(Section):
    message_max_length: int = Field(gt=0)
    message_rate: float = Field(gt=0)
    message_burst: int = Field(gt=0)
    typing_interval: float = Field(ge=0)


class Log(Section):
    level: Literal["DEBUG", "INFO", "WARNING", "ERROR"]
    format: Literal["text", "json"]


class Metrics(Section):
    port: int = Field(ge=0, le=65535)


class Settings(BaseSettings):
    """The whole configuration; fields mirror `config/default.toml`, which explains each."""

    model_config = SettingsConfigDict(
        env_prefix=PREFIX, env_nested_delimiter="__", extra="forbid", frozen=True, case_sensitive=False
    )
    overlay: ClassVar[Path | None] = None

    environment: Literal["development", "production"]
    data_dir: Path
    secret: str
    previous_secrets: tuple[str, ...]
    http: Http
    limits: Limits
    database: Database
    redis: Redis
    broker: Broker
    objects: Objects
    smtp: Smtp
    auth: Auth
    realtime: Realtime
    chat: Chat
    log: Log
    metrics: Metrics

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Order of precedence: arguments, environment, overlay, defaults."""
        files = [path for path in (cls.overlay, DEFAULTS) if path]
        return init_settings, env_settings, *(TomlConfigSettingsSource(settings_cls, file) for file in files)

    @property
    def public_url(self) -> str:
        return self.http.public_url or f"http://{self.http.host}:{self.http.port}"


def load_settings(**overrides: Any) -> Settings:  # Any: the values of a nested tree, validated by the model
    """Read the configuration.

    Raises:
        ConfigurationError: unknown key, wrong value, unreadable overlay, or no secret in production.
    """
    overlay = os.environ.get(OVERLAY)
    if overlay and not Path(overlay).is_file():
        raise ConfigurationError(f"{OVERLAY}={overlay}: no such file")
    _refuse_unknown_variables()
    try:
        # The sources are classmethods of the model, so the overlay travels as a class attribute of a subclass.
        model = type("Settings", (Settings,), {"overlay": Path(overlay) if overlay else None, "__module__": __name__})
        settings: Settings = model(**overrides)
    except ValidationError as error:
        raise ConfigurationError(_describe(error)) from error
    except SettingsError as error:
        reason = " ".join(str(error).split())
        raise ConfigurationError(f'configuration: {reason} (a list is written as JSON: ["a", "b"])') from error
    except ValueError as error:  # a TOML file that does not parse
        raise ConfigurationError(f"configuration: {' '.join(str(error).split())}") from error
    return _with_secret(settings)


def planted_bugs() -> frozenset[str]:
    """Names of the planted bugs that a test has switched on; empty everywhere else."""
    return frozenset(filter(None, os.environ.get(PLANTED_BUGS, "").split(",")))


def _with_secret(settings: Settings) -> Settings:
    """Take the given secret, or make one and keep it beside the data of a machine that is not in production."""
    if settings.environment == "production" and planted_bugs():
        raise ConfigurationError(f"{PLANTED_BUGS} is for tests and refused in production")
    if settings.secret:
        if len(settings.secret) < SECRET_LENGTH:
            raise ConfigurationError(f"secret: at least {SECRET_LENGTH} characters are needed")
        return settings
    if settings.environment == "production":
        raise ConfigurationError("secret: must be set in production (LECTERN_SECRET)")
    return settings.model_copy(update={"secret": _kept_secret(settings.data_dir / "secret")})


def _kept_secret(path: Path) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f"secret.{os.getpid()}")
    try:
        draft.touch(mode=0o600)
        draft.write_text(secrets.token_urlsafe(48))
        with suppress(FileExistsError):
            os.link(draft, path)  # atomic: of several replicas that start at once, one wins and all read its secret
    except OSError as error:
        raise ConfigurationError(f"secret: cannot be kept in {path}: {error.strerror}") from error
    finally:
        draft.unlink(missing_ok=True)
    return path.read_text().strip()


def _refuse_unknown_variables() -> None:
    known = {PLANTED_BUGS, OVERLAY}
    for name, field in Settings.model_fields.items():
        section = field.annotation
        if isinstance(section, type) and issubclass(section, Section):
            known |= {f"{PREFIX}{name}__{key}".upper() for key in section.model_fields}
        else:
            known.add(f"{PREFIX}{name}".upper())
    given = {name for name in os.environ if name.upper().startswith(PREFIX) and not name.startswith(FOR_TESTS)}
    unknown = sorted(name for name in given if name.upper() not in known)
    if unknown:
        raise ConfigurationError(f"unknown configuration variable {unknown[0]}")


def _describe(error: ValidationError) -> str:
    problems = (f"{'.'.join(map(str, item['loc']))}: {item['msg']}" for item in error.errors())
    return "configuration: " + "; ".join(problems)
