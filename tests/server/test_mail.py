from __future__ import annotations

import asyncio
import datetime
import ipaddress
import socket
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from email import policy
from email.message import EmailMessage
from email.parser import BytesParser
from pathlib import Path
from typing import Any

import pytest
from aiosmtpd.smtp import SMTP as SmtpProtocol
from aiosmtpd.smtp import AuthResult, Envelope, Session
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from server.clock import Clock
from server.mail import Letter, Templates, compose, mail_server, send
from server.outbox import Undeliverable
from server.settings import ConfigurationError, Settings

NOW = datetime.datetime(2026, 11, 22, 19, 30, tzinfo=datetime.UTC)
LETTER = Letter("greeting", "0193", "ada@example.com", "Hello", "Dear Ada\n", "<p>Dear Ada</p>")

# aiosmtpd 1.4 warns about its own use of passwords without TLS, which one test is about.
pytestmark = pytest.mark.filterwarnings("ignore:Requiring AUTH while not requiring TLS")


class Postbox:
    """The handler of aiosmtpd: keeps what it takes, and answers as it is told."""

    def __init__(self, *, rcpt: str = "250 OK", data: str = "250 OK") -> None:
        self.messages: list[EmailMessage] = []
        self.encrypted: list[bool] = []
        self.envelopes: list[Envelope] = []
        self._rcpt, self._data = rcpt, data

    async def handle_RCPT(
        self, server: Any, session: Session, envelope: Envelope, address: str, options: list[str]
    ) -> str:
        if self._rcpt.startswith("250"):
            envelope.rcpt_tos.append(address)
        return self._rcpt

    async def handle_DATA(self, server: Any, session: Session, envelope: Envelope) -> str:
        assert isinstance(envelope.original_content, bytes)
        parsed = BytesParser(policy=policy.default).parsebytes(envelope.original_content)
        assert isinstance(parsed, EmailMessage)
        self.messages.append(parsed)
        self.encrypted.append(session.ssl is not None)
        self.envelopes.append(envelope)
        return self._data


@asynccontextmanager
async def smtp(
    postbox: Postbox, *, tls: ssl.SSLContext | None = None, from_start: bool = False, **options: Any
) -> AsyncIterator[int]:
    """A mail server on a free port."""
    loop = asyncio.get_running_loop()
    protocols: list[SmtpProtocol] = []

    def protocol() -> SmtpProtocol:
        context = None if from_start else tls
        protocols.append(SmtpProtocol(postbox, hostname="mail.test", tls_context=context, loop=loop, **options))
        return protocols[-1]

    server = await loop.create_server(protocol, "127.0.0.1", 0, ssl=tls if from_start else None)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        await server.wait_closed()
        for each in protocols:
            if each.transport is not None:
                each.transport.close()
            if each._handler_coroutine is not None:  # it forgets this task when a handshake fails
                each._handler_coroutine.cancel()


@pytest.fixture
def certificate(tmp_path: Path) -> Path:
    """A certificate of 127.0.0.1 with its key, signed by itself."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "127.0.0.1")])
    address = x509.IPAddress(ipaddress.ip_address("127.0.0.1"))
    today = Clock().now()
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(today - datetime.timedelta(days=1))
        .not_valid_after(today + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([address]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    secret = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    path = tmp_path / "certificate.pem"
    path.write_bytes(secret + made.public_bytes(serialization.Encoding.PEM))
    return path


@pytest.fixture
def server_tls(certificate: Path) -> ssl.SSLContext:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificate)
    return context


@pytest.fixture
def to_server(settings: Settings) -> Callable[..., Settings]:
    """The settings of a server whose mail goes to a URL."""

    def configured(url: str, **changes: Any) -> Settings:
        values = {"url": url, "timeout": 2.0, "sender": "Lectern <no-reply@school.example>", **changes}
        return settings.model_copy(update={"smtp": settings.smtp.model_copy(update=values)})

    return configured


async def test_letter_arrives_in_both_forms(to_server: Callable[..., Settings]) -> None:
    postbox = Postbox()
    async with smtp(postbox) as port:
        await send(to_server(f"smtp://127.0.0.1:{port}"), LETTER, NOW)
    (message,) = postbox.messages
    text, html = message.get_body(("plain",)), message.get_body(("html",))
    assert text is not None
    assert html is not None
    assert (text.get_content().splitlines(), html.get_content().splitlines()) == (["Dear Ada"], ["<p>Dear Ada</p>"])
    assert message["From"] == "Lectern <no-reply@school.example>"
    assert message["Message-ID"] == "<0193@school.example>"
    assert message["Date"] == "Sun, 22 Nov 2026 19:30:00 +0000"
    assert message["Auto-Submitted"] == "auto-generated"
    assert postbox.envelopes[0].mail_from == "no-reply@school.example"


async def test_starttls_is_used_and_the_certificate_checked(
    to_server: Callable[..., Settings], server_tls: ssl.SSLContext, certificate: Path
) -> None:
    postbox = Postbox()
    async with smtp(postbox, tls=server_tls) as port:
        url = f"smtp://127.0.0.1:{port}?tls=required"
        await send(to_server(url, ca_file=str(certificate)), LETTER, NOW)
        with pytest.raises(OSError, match=r"certificate|SSL"):
            await send(to_server(url), LETTER, NOW)
    assert postbox.encrypted == [True]


async def test_tls_from_the_first_byte(
    to_server: Callable[..., Settings], server_tls: ssl.SSLContext, certificate: Path
) -> None:
    postbox = Postbox()
    async with smtp(postbox, tls=server_tls, from_start=True) as port:
        await send(to_server(f"smtps://127.0.0.1:{port}", ca_file=str(certificate)), LETTER, NOW)
        with pytest.raises(OSError, match=r"certificate|SSL"):
            await send(to_server(f"smtps://127.0.0.1:{port}"), LETTER, NOW)
    assert len(postbox.messages) == 1


async def test_nothing_is_sent_where_starttls_was_taken_away(to_server: Callable[..., Settings]) -> None:
    postbox = Postbox()
    async with smtp(postbox) as port:
        with pytest.raises((OSError, Undeliverable)):
            await send(to_server(f"smtp://127.0.0.1:{port}?tls=required"), LETTER, NOW)
    assert postbox.messages == []


async def test_password_is_given(to_server: Callable[..., Settings]) -> None:
    seen = []

    def check(server: Any, session: Any, envelope: Any, mechanism: str, data: Any) -> AuthResult:
        seen.append((data.login, data.password))
        return AuthResult(success=data.password == b"p@ss/word", handled=False)

    postbox = Postbox()
    options: dict[str, Any] = {"authenticator": check, "auth_required": True, "auth_require_tls": False}
    async with smtp(postbox, **options) as port:
        await send(to_server(f"smtp://lectern:p%40ss%2Fword@127.0.0.1:{port}"), LETTER, NOW)
        with pytest.raises(OSError, match="password"):
            await send(to_server(f"smtp://lectern:wrong@127.0.0.1:{port}"), LETTER, NOW)
    assert seen[0] == (b"lectern", b"p@ss/word")
    assert len(postbox.messages) == 1


@pytest.mark.parametrize(
    ("answers", "expected"),
    [
        ({"rcpt": "550 no such mailbox"}, Undeliverable),
        ({"rcpt": "451 greylisted"}, OSError),
        ({"data": "554 this looks like spam"}, Undeliverable),
        ({"data": "452 no room"}, OSError),
    ],
)
async def test_refusals_for_good_and_for_now_are_told_apart(
    to_server: Callable[..., Settings], answers: dict[str, str], expected: type[Exception]
) -> None:
    async with smtp(Postbox(**answers)) as port:
        with pytest.raises(expected) as caught:
            await send(to_server(f"smtp://127.0.0.1:{port}"), LETTER, NOW)
    assert "ada@" not in str(caught.value)


async def test_server_that_is_away_or_silent_is_an_error_in_time(to_server: Callable[..., Settings]) -> None:
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        port = silent.getsockname()[1]
        with pytest.raises(OSError):  # noqa: PT011 - whichever the system says
            await send(to_server(f"smtp://127.0.0.1:{port}"), LETTER, NOW)
        silent.listen()
        with pytest.raises(OSError):  # noqa: PT011
            await send(to_server(f"smtp://127.0.0.1:{port}", timeout=0.2), LETTER, NOW)


@pytest.mark.parametrize("to", ["ada@example.com\r\nBcc: eve@example.com", "no address", "", "a@b, c@d", "<a@b>"])
async def test_what_is_no_address_reaches_no_header(settings: Settings, to: str) -> None:
    with pytest.raises(Undeliverable):
        compose(settings, replace(LETTER, to=to), NOW)


async def test_subject_stays_one_line(settings: Settings) -> None:
    message = compose(settings, replace(LETTER, subject="Hello\r\nBcc: eve@example.com\u2028x"), NOW)
    assert message["Subject"] == "Hello  Bcc: eve@example.com x"
    assert message["Bcc"] is None


async def test_address_in_other_letters_is_carried(to_server: Callable[..., Settings]) -> None:
    postbox = Postbox()
    async with smtp(postbox, enable_SMTPUTF8=True) as port:
        for to in ("ada@bücher.example", "émile@bücher.example"):
            await send(to_server(f"smtp://127.0.0.1:{port}"), replace(LETTER, to=to), NOW)
    assert [envelope.rcpt_tos for envelope in postbox.envelopes] == [
        ["ada@xn--bcher-kva.example"],
        ["émile@xn--bcher-kva.example"],
    ]


async def test_server_that_cannot_carry_an_address_is_told_apart(to_server: Callable[..., Settings]) -> None:
    async with smtp(Postbox(), enable_SMTPUTF8=False) as port:
        with pytest.raises(Undeliverable):
            await send(to_server(f"smtp://127.0.0.1:{port}"), replace(LETTER, to="émile@example.com"), NOW)


async def test_without_a_server_letters_are_files(settings: Settings) -> None:
    for _ in range(2):  # the second time over itself
        await send(settings, LETTER, NOW)
    (path,) = (settings.data_dir / "mail").iterdir()
    message = BytesParser(policy=policy.default).parsebytes(path.read_bytes())
    assert (path.name, message["To"], message["Subject"]) == ("0193.eml", "ada@example.com", "Hello")


async def test_old_files_make_room(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("server.mail.KEPT_FILES", 3)
    for number in range(6):
        await send(settings, replace(LETTER, key=f"{number:04}"), NOW)
    kept = sorted(path.name for path in (settings.data_dir / "mail").iterdir())
    assert kept == ["0003.eml", "0004.eml", "0005.eml"]


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("smtp://mail.example", ("mail.example", 587, "required")),
        ("smtps://mail.example", ("mail.example", 465, "from_start")),
        ("smtp://127.0.0.1:25", ("127.0.0.1", 25, "optional")),
        ("smtp://[::1]:25", ("::1", 25, "optional")),
        ("smtp://localhost:1025", ("localhost", 1025, "optional")),
        ("smtp://mailpit:1025?tls=none", ("mailpit", 1025, "none")),
    ],
)
def test_url_says_where_and_how_safe(url: str, expected: tuple[str, int, str]) -> None:
    server = mail_server(url)
    assert (server.host, server.port, server.tls) == expected


@pytest.mark.parametrize(
    "url", ["http://mail.example", "smtp://", "smtp://host:x", "smtp://host?tls=maybe", "smtp://["]
)
def test_url_of_no_use_is_refused(url: str) -> None:
    with pytest.raises(ConfigurationError):
        mail_server(url)


async def test_templates_escape_in_html_only_and_miss_nothing(tmp_path: Path) -> None:
    (tmp_path / "hi.txt").write_text("Hi {{ name }}\n\nDear {{ name }}\n")
    (tmp_path / "hi.html").write_text("<p>{{ name }}</p>")
    templates = Templates(tmp_path)
    letter = await templates.write("hi", key="k", to="a@b.example", values={"name": "<i>Ada</i>"})
    assert (letter.subject, letter.text) == ("Hi <i>Ada</i>", "Dear <i>Ada</i>\n")
    assert letter.html == "<p>&lt;i&gt;Ada&lt;/i&gt;</p>"
    with pytest.raises(Exception, match="name"):
        await templates.write("hi", key="k", to="a@b.example", values={})
