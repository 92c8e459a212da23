"""What the web client is served as: types, caching, the policy of the page, and nothing outside its directory."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from pathlib import PurePosixPath

import aiohttp
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer
from yarl import URL

from modules.web.routes import STATIC, add_static
from tests.processes import free_ports


@pytest.fixture
async def client() -> AsyncIterator[aiohttp.ClientSession]:
    application = web.Application()
    own_port = free_ports(1)
    add_static(application, replica_ports=(own_port, 8081))
    async with TestServer(application, port=own_port) as server, aiohttp.ClientSession(server.make_url("/")) as session:
        yield session


async def test_page_forbids_everything_but_its_own_files_and_servers(client: aiohttp.ClientSession) -> None:
    async with client.get("/") as response:
        policy = response.headers["Content-Security-Policy"]
        text = await response.text()

    assert response.content_type == "text/html"
    assert response.headers["Cache-Control"] == "no-cache"
    assert "default-src 'none'" in policy
    assert "script-src 'self';" in policy
    assert "connect-src 'self' http://127.0.0.1:8081 ws://127.0.0.1:8081;" in policy
    assert "unsafe" not in policy
    assert 'name="lectern-servers" content="http://127.0.0.1:8081"' in text
    assert not re.search(r"<style|<script(?![^>]* src=)|\son\w+=|\sstyle=", text)


@pytest.mark.parametrize("host", ['x"><script>:8080', "a b", "evil;sandbox", "", "[::1"])
async def test_host_that_is_none_gets_into_neither_policy_nor_page(client: aiohttp.ClientSession, host: str) -> None:
    async with client.get("/", headers={"Host": host}) as response:
        text = await response.text()
        assert "connect-src 'self';" in response.headers["Content-Security-Policy"]
    assert 'name="lectern-servers" content=""' in text


async def test_every_file_that_page_and_modules_name_is_served(client: aiohttp.ClientSession) -> None:
    named = {PurePosixPath(path) for path in re.findall(r'"(/static/[^"]+)"', (STATIC / "index.html").read_text())}
    for module in (STATIC / "js").rglob("*.js"):
        directory = PurePosixPath("/static") / module.relative_to(STATIC).parent.as_posix()
        for target in re.findall(r'from "(\.[^"]+)"', module.read_text()):
            named.add(PurePosixPath(URL(f"http://here{directory}/").join(URL(target)).path))

    assert len(named) > 30
    for path in named:
        async with client.get(str(path)) as response:
            assert response.status == 200, path
            assert response.headers["X-Content-Type-Options"] == "nosniff"
            if path.suffix == ".js":
                assert response.headers["Content-Type"] == "text/javascript; charset=utf-8"


async def test_unchanged_file_is_not_sent_again(client: aiohttp.ClientSession) -> None:
    async with client.get("/static/js/main.js") as first:
        tag = first.headers["ETag"]
    async with client.get("/static/js/main.js", headers={"If-None-Match": tag}) as again:
        assert again.status == 304


@pytest.mark.parametrize(
    "path",
    [
        "/static/",
        "/static/js",
        "/static/js/",
        "/static/js/nothing.js",
        "/static/../routes.py",
        "/static/js/../../../routes.py",
        "/static/%2e%2e/routes.py",
        "/static/..%2froutes.py",
        "/static//etc/passwd",
        "/static/vendor/README.md",
        "/index.html",
    ],
)
async def test_what_is_no_file_of_the_client_is_not_found(client: aiohttp.ClientSession, path: str) -> None:
    async with client.get(URL(path, encoded=True)) as response:
        assert response.status == 404
