"""Mail: letters from templates, and the way out: a mail server, or files when none is configured.

It knows no feature: templates and what they say belong to the modules. Nobody who answers a request calls `send`: it is
for consumers of durable events (outbox.py), which may call it twice for one letter; its Message-ID is then the same, so
that mail servers and readers recognise the second copy, and a file is written over itself.
"""

from __future__ import annotations

import asyncio
import os
import ssl
import unicodedata
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from email.headerregistry import Address
from email.message import EmailMessage
from email.policy import SMTP
from email.utils import format_datetime, parseaddr
from functools import lru_cache
from ipaddress import ip_address
from pathlib import Path
from typing import Literal
from urllib.parse import parse_qs, unquote, urlsplit

import aiosmtplib
import jinja2
from email_validator import EmailNotValidError, validate_email

from server.metrics import EMAILS_SENT
from server.outbox import Undeliverable
from server.settings import ConfigurationError, Settings, Smtp

MAIL_DIRECTORY = "mail"  # in data_dir
KEPT_FILES = 1000  # letters in that directory; the oldest go first
SUBJECT_LENGTH = 200  # characters
SUBMISSION, SUBMISSIONS = 587, 465  # ports (RFC 8314)

Tls = Literal["from_start", "required", "optional", "none"]


@dataclass(frozen=True, slots=True)
class Letter:
    """One letter to one address. `kind` is for the metric; `key` makes the Message-ID, the same in every attempt."""

    kind: str
    key: str
    to: str
    subject: str
    text: str
    html: str


@dataclass(frozen=True, slots=True)
class Server:
    """Where letters are handed in."""

    host: str
    port: int
    username: str | None
    password: str | None
    tls: Tls


class Templates:
    """The letters of a module: `<kind>.txt`, whose first line is the subject, and `<kind>.html`, in one directory.

    What stands in HTML is escaped, and a name that a template expects and does not get is an error.
    """

    def __init__(self, directory: Path) -> None:
        self._environment = jinja2.Environment(
            loader=jinja2.FileSystemLoader(directory),
            autoescape=jinja2.select_autoescape(("html",)),
            undefined=jinja2.StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
        )

    async def write(self, kind: str, *, key: str, to: str, values: Mapping[str, object]) -> Letter:
        """Fill in a letter; in a thread, because templates are files."""
        return await asyncio.to_thread(self._write, kind, key, to, values)

    def _write(self, kind: str, key: str, to: str, values: Mapping[str, object]) -> Letter:
        subject, _, text = self._environment.get_template(f"{kind}.txt").render(values).partition("\n")
        html = self._environment.get_template(f"{kind}.html").render(values)
        return Letter(kind, key, to, subject, text.strip() + "\n", html)


async def send(settings: Settings, letter: Letter, now: datetime) -> None:
    """Hand a letter to the mail server, or write it into `data_dir/mail`.

    Raises:
        OSError: the mail server does not answer, or refuses for now; later may help.
        Undeliverable: it refuses this letter for good.
    """
    message = compose(settings, letter, now)
    if settings.smtp.url:
        await _hand_in(settings.smtp, message)
    else:
        await asyncio.to_thread(_keep, settings.data_dir / MAIL_DIRECTORY, letter, message)
    EMAILS_SENT.labels(letter.kind).inc()


def compose(settings: Settings, letter: Letter, now: datetime) -> EmailMessage:
    """Write a letter as a message.

    Raises:
        Undeliverable: the address cannot stand in a header.
    """
    name, sender = parseaddr(settings.smtp.sender)
    message = EmailMessage(policy=SMTP)
    message["From"] = Address(_plain(name), addr_spec=sender)
    message["To"] = _address(letter.to)
    message["Subject"] = _plain(letter.subject)[:SUBJECT_LENGTH]
    message["Date"] = format_datetime(now)
    message["Message-ID"] = f"<{letter.key}@{sender.rpartition('@')[2]}>"
    message["Auto-Submitted"] = "auto-generated"  # RFC 3834: no answer from machines
    message.set_content(letter.text)
    message.add_alternative(letter.html, subtype="html")
    return message


@lru_cache(maxsize=4)  # one in a server; tests have several
def mail_server(url: str) -> Server:
    """Read the address of a mail server.

    A password never goes over a line that is not encrypted, unless both ends are this machine or the operator says so.

    Raises:
        ConfigurationError: the URL is of no use.
    """
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError as error:
        raise ConfigurationError(f"smtp.url: {error}") from error
    if parts.scheme not in ("smtp", "smtps") or not host:
        raise ConfigurationError("smtp.url: give smtp://host:port or smtps://host:port")
    username, password = (unquote(part) if part else None for part in (parts.username, parts.password))
    default = SUBMISSIONS if parts.scheme == "smtps" else SUBMISSION
    return Server(host, port or default, username, password, _tls(parts.scheme, host, parts.query))


def _tls(scheme: str, host: str, query: str) -> Tls:
    if scheme == "smtps":
        return "from_start"
    match parse_qs(query).get("tls", [""])[0]:
        case "":
            return "optional" if _is_here(host) else "required"
        case "required":
            return "required"
        case "optional":
            return "optional"
        case "none":
            return "none"
    raise ConfigurationError("smtp.url: tls is one of required, optional, none")


def _is_here(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


async def _hand_in(smtp: Smtp, message: EmailMessage) -> None:
    server = mail_server(smtp.url)
    context = await asyncio.to_thread(ssl.create_default_context, cafile=smtp.ca_file or None)
    try:
        await aiosmtplib.send(
            message,
            hostname=server.host,
            port=server.port,
            username=server.username,
            password=server.password,
            timeout=smtp.timeout,
            use_tls=server.tls == "from_start",
            start_tls={"required": True, "optional": None}.get(server.tls, False),
            tls_context=context,
        )
    except aiosmtplib.SMTPRecipientsRefused as error:
        raise _refused(max(refusal.code for refusal in error.recipients), "recipient") from error
    except aiosmtplib.SMTPAuthenticationError as error:
        raise OSError(f"the mail server refuses our password ({error.code})") from error  # an operator can mend it
    except aiosmtplib.SMTPConnectResponseError as error:
        raise OSError(f"the mail server takes nobody now ({error.code})") from error
    except aiosmtplib.SMTPResponseException as error:
        raise _refused(error.code, "letter") from error
    except aiosmtplib.SMTPNotSupported as error:
        raise Undeliverable("the mail server cannot carry this address") from error
    except aiosmtplib.SMTPException as error:
        if isinstance(error, OSError):
            raise
        raise OSError(f"{type(error).__name__}") from error


def _refused(code: int, what: str) -> Exception:
    """A code of 5xx is for good (RFC 5321 section 4.2.1). The server's text may quote the letter and is not kept."""
    if code >= 500:
        return Undeliverable(f"the mail server refuses this {what} ({code})")
    return OSError(f"the mail server does not take this {what} now ({code})")


def _keep(directory: Path, letter: Letter, message: EmailMessage) -> None:
    """Write a letter as a file that is there as a whole or not at all."""
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    path = directory / f"{letter.key}.eml"
    draft = path.with_suffix(f".{os.getpid()}")
    draft.write_bytes(message.as_bytes())
    draft.replace(path)
    for old in sorted(directory.glob("*.eml"))[:-KEPT_FILES]:  # their names begin with their time
        with suppress(FileNotFoundError):
            old.unlink()


def _address(email: str) -> Address:
    """An address for a header; a domain in other letters travels in ASCII, so that any mail server can carry it."""
    try:
        checked = validate_email(email, check_deliverability=False, test_environment=True)
    except EmailNotValidError as error:
        raise Undeliverable("this is no address") from error
    return Address("", checked.local_part, checked.ascii_domain)


def _plain(text: str) -> str:
    """One line without control characters: text of users stands in headers."""
    return "".join(" " if unicodedata.category(letter)[0] in "CZ" else letter for letter in text).strip()
