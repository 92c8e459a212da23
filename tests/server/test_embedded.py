"""The private PostgreSQL and Valkey: started, taken over, recovered and stopped as real processes."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import asyncpg
import pytest
import redis.asyncio

from server import confinement, embedded
from server.embedded import EmbeddedServices
from server.settings import ConfigurationError, Settings, load_settings

ROOT = Path(__file__).resolve().parents[2]
DEADLINE = 30.0  # seconds for anything to happen
HOLDER = """
import asyncio, sys
from server.embedded import EmbeddedServices
from server.settings import load_settings

async def hold() -> None:
    async with EmbeddedServices(load_settings(data_dir=sys.argv[1])) as services:
        print(services.database_url, flush=True)
        await asyncio.to_thread(sys.stdin.read)

asyncio.run(hold())
"""


@pytest.fixture
def refuge() -> Iterator[Path]:
    """A directory that user nobody reaches: those of pytest are closed."""
    with tempfile.TemporaryDirectory(prefix="lectern-test-", dir="/var/tmp") as name:
        Path(name).chmod(0o755)
        yield Path(name)


@pytest.fixture(params=["own", "nobody"])
def identity(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, refuge: Path) -> str:
    """Run a test as we are, and as root that may not make user namespaces."""
    if request.param == "nobody":
        _forbid_namespaces(monkeypatch, refuge)
    name: str = request.param
    return name


@pytest.fixture
async def settings(tmp_path: Path) -> AsyncIterator[Settings]:
    settings = load_settings(data_dir=tmp_path / "data")
    yield settings
    for pid in _processes(settings.data_dir):  # of a test that failed in the middle
        os.kill(pid, signal.SIGKILL)


def _forbid_namespaces(monkeypatch: pytest.MonkeyPatch, refuge: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root becomes nobody")
    monkeypatch.setattr(confinement, "NAMESPACE", ("false",))
    monkeypatch.setattr(confinement, "REFUGE", refuge)


def _processes(data: Path) -> list[int]:
    """Return every process of a data directory, and of the place it stands for."""
    places = {os.fsencode(place) for name in ("postgres", "valkey") for place in (data / name, (data / name).resolve())}
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            arguments = (process / "cmdline").read_bytes().split(b"\0")
        except OSError:
            continue
        if places.intersection(arguments):
            found.append(int(process.name))
    return found


async def _eventually(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(DEADLINE):
        while not condition():  # noqa: ASYNC110 - processes set no event
            await asyncio.sleep(0.01)


async def _query(url: str, statement: str) -> object:
    connection = await asyncpg.connect(url)
    try:
        return await connection.fetchval(statement)
    finally:
        await connection.close()


async def _redis(url: str, *command: str) -> object:
    async with redis.asyncio.Redis.from_url(url, decode_responses=True) as client:
        return await client.execute_command(*command)


def _postmaster(settings: Settings) -> int:
    return int((settings.data_dir / "postgres" / "postmaster.pid").read_text().split()[0])


def _hold(settings: Settings) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", HOLDER, str(settings.data_dir)]
    return subprocess.Popen(command, cwd=ROOT, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE)


async def _first_line(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    async with asyncio.timeout(DEADLINE):
        return (await asyncio.to_thread(process.stdout.readline)).strip()


def _end(process: subprocess.Popen[str]) -> None:
    process.kill()
    process.communicate()


async def test_both_services_answer_and_stop_leaves_no_process_and_no_socket(identity: str, settings: Settings):
    async with EmbeddedServices(settings) as services:
        assert await _query(services.database_url, "SELECT current_database()") == "lectern"
        assert await _query(services.database_url, "SHOW timezone") == "UTC"
        assert await _query(services.database_url, "SHOW server_encoding") == "UTF8"
        assert await _query(services.database_url, "SHOW listen_addresses") == ""
        assert await _redis(services.redis_url, "CONFIG", "GET", "appendonly") == {"appendonly": "yes"}
        assert _processes(settings.data_dir)
    sockets = Path((settings.data_dir / "sockets").read_text().split()[1])
    assert not _processes(settings.data_dir)
    assert not sockets.exists()


async def test_data_survives_a_restart_at_the_same_urls(identity: str, settings: Settings):
    async with EmbeddedServices(settings) as first:
        await _query(first.database_url, "CREATE TABLE kept AS SELECT 7 AS number")
        await _redis(first.redis_url, "SET", "kept", "7")
    async with EmbeddedServices(settings) as second:
        assert second == first
        assert await _query(second.database_url, "SELECT number FROM kept") == 7
        assert await _redis(second.redis_url, "GET", "kept") == "7"


async def test_data_made_as_root_is_usable_without_namespaces_and_back(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, refuge: Path
):
    async with EmbeddedServices(settings) as services:
        await _query(services.database_url, "CREATE TABLE kept AS SELECT 7 AS number")
    with monkeypatch.context() as without_namespaces:
        _forbid_namespaces(without_namespaces, refuge)
        async with EmbeddedServices(settings) as services:
            assert await _query(services.database_url, "SELECT number FROM kept") == 7
            assert Path(f"/proc/{_postmaster(settings)}").stat().st_uid != 0
    async with EmbeddedServices(settings) as services:
        assert await _query(services.database_url, "SELECT number FROM kept") == 7


async def test_second_start_takes_over_the_servers_of_a_killed_process(settings: Settings):
    holder = _hold(settings)
    try:
        url = await _first_line(holder)
        postmaster = _postmaster(settings)
    finally:
        _end(holder)
    assert postmaster in _processes(settings.data_dir)
    async with EmbeddedServices(settings) as services:
        assert services.database_url == url
        assert _postmaster(settings) == postmaster
    await _eventually(lambda: not _processes(settings.data_dir))


async def test_servers_run_until_their_last_user_has_stopped(settings: Settings):
    holder = _hold(settings)
    try:
        async with EmbeddedServices(settings) as services:
            assert await _first_line(holder) == services.database_url
        assert await _query(services.database_url, "SELECT 1") == 1
        holder.communicate("", timeout=DEADLINE)
    finally:
        _end(holder)
    await _eventually(lambda: not _processes(settings.data_dir))


async def test_two_first_starts_at_once_share_one_server(settings: Settings):
    holders = [_hold(settings), _hold(settings)]
    try:
        urls = [await _first_line(holder) for holder in holders]
        assert urls[0] == urls[1]
        assert await _query(urls[0], "SELECT 1") == 1
        for holder in holders:
            holder.communicate("", timeout=DEADLINE)
    finally:
        for holder in holders:
            _end(holder)
    await _eventually(lambda: not _processes(settings.data_dir))


async def test_start_recovers_a_killed_postgres_and_a_killed_valkey(identity: str, settings: Settings):
    services = EmbeddedServices(settings)
    urls = await services.start()
    try:
        await _query(urls.database_url, "CREATE TABLE kept AS SELECT 7 AS number")
        await _redis(urls.redis_url, "SET", "kept", "7")
        await _redis(urls.redis_url, "WAITAOF", "1", "0", "1000")
        for pid in _processes(settings.data_dir):
            os.kill(pid, signal.SIGKILL)
        await _eventually(lambda: not services.alive())
        assert await services.start() == urls
        assert await _query(urls.database_url, "SELECT number FROM kept") == 7
        assert await _redis(urls.redis_url, "GET", "kept") == "7"
    finally:
        await services.stop()
    assert not _processes(settings.data_dir)


async def test_pid_file_that_names_a_stranger_is_ignored_and_the_stranger_lives(settings: Settings):
    async with EmbeddedServices(settings):
        pass
    stranger = await asyncio.create_subprocess_exec("sleep", "60")
    try:
        (settings.data_dir / "postgres" / "postmaster.pid").write_text(f"{stranger.pid}\n/elsewhere\n0\n5432\n")
        (settings.data_dir / "valkey" / "valkey.pid").write_text(f"{stranger.pid}\n")
        async with EmbeddedServices(settings) as services:
            assert await _query(services.database_url, "SELECT 1") == 1
        assert stranger.returncode is None
    finally:
        stranger.kill()
        await stranger.wait()


@pytest.mark.parametrize("content", ["", "not a number\n"])
async def test_unreadable_pid_file_does_not_stop_a_start(settings: Settings, content: str):
    async with EmbeddedServices(settings):
        pass
    (settings.data_dir / "postgres" / "postmaster.pid").write_text(content)
    async with EmbeddedServices(settings) as services:
        assert await _query(services.database_url, "SELECT 1") == 1


async def test_initdb_killed_in_the_middle_is_done_again(settings: Settings):
    holder = _hold(settings)
    try:
        await _eventually(lambda: any(settings.data_dir.glob("postgres.new-*/base/1")))
    finally:
        _end(holder)
    assert not (settings.data_dir / "postgres").exists()
    async with EmbeddedServices(settings) as services:
        assert await _query(services.database_url, "SELECT 1") == 1
    assert not list(settings.data_dir.glob("postgres.new-*"))


async def test_cancelled_first_start_leaves_no_process(settings: Settings):
    async with asyncio.TaskGroup() as group:
        start = group.create_task(EmbeddedServices(settings).start())
        await _eventually(lambda: any(settings.data_dir.glob("postgres.new-*/base/1")))
        start.cancel()
    await _eventually(lambda: not _processes(settings.data_dir))
    assert not (settings.data_dir / "postgres").exists()


async def test_server_whose_sockets_were_removed_is_started_again(settings: Settings, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(embedded, "DEAF_TIMEOUT", 0.2)
    holder = _hold(settings)
    try:
        await _first_line(holder)
    finally:
        _end(holder)
    sockets = Path((settings.data_dir / "sockets").read_text().split()[1])
    for socket in sockets.iterdir():
        socket.unlink()
    async with EmbeddedServices(settings) as services:
        assert await _query(services.database_url, "SELECT 1") == 1
        assert await _redis(services.redis_url, "PING") in ("PONG", True)


async def test_socket_directory_of_somebody_else_is_not_used(settings: Settings):
    async with EmbeddedServices(settings):
        pass
    sockets = Path((settings.data_dir / "sockets").read_text().split()[1])
    sockets.mkdir(mode=0o777)
    sockets.chmod(0o777)
    try:
        async with EmbeddedServices(settings) as services:
            assert str(sockets) not in services.database_url
    finally:
        sockets.rmdir()


async def test_copied_data_directory_has_sockets_of_its_own(settings: Settings, tmp_path: Path):
    async with EmbeddedServices(settings):
        pass
    copy = load_settings(data_dir=tmp_path / "copy")
    shutil.copytree(settings.data_dir, copy.data_dir, dirs_exist_ok=True)
    async with EmbeddedServices(settings) as services, EmbeddedServices(copy) as copied:
        assert services.database_url != copied.database_url
        assert await _query(copied.database_url, "SHOW data_directory") == str(copy.data_dir / "postgres")


async def test_given_urls_are_passed_through_and_nothing_is_started(settings: Settings):
    given = settings.model_copy(
        update={
            "database": settings.database.model_copy(update={"url": "postgresql://db/school"}),
            "redis": settings.redis.model_copy(update={"url": "redis://cache/0"}),
        }
    )
    async with EmbeddedServices(given) as services:
        assert (services.database_url, services.redis_url) == ("postgresql://db/school", "redis://cache/0")
        assert not _processes(settings.data_dir)


async def test_only_the_service_without_url_is_started(settings: Settings):
    given = settings.model_copy(
        update={"database": settings.database.model_copy(update={"url": "postgresql://db/school"})}
    )
    async with EmbeddedServices(given) as services:
        assert services.database_url == "postgresql://db/school"
        assert await _redis(services.redis_url, "PING") in ("PONG", True)
        assert not (settings.data_dir / "postgres").exists()


async def test_data_of_a_missing_postgres_version_is_one_clear_error(settings: Settings):
    (settings.data_dir / "postgres").mkdir(parents=True)
    (settings.data_dir / "postgres" / "PG_VERSION").write_text("12\n")
    with pytest.raises(ConfigurationError, match="needs PostgreSQL 12"):
        await EmbeddedServices(settings).start()
    assert not _processes(settings.data_dir)


async def test_server_that_refuses_to_start_is_one_clear_error_and_leaves_no_process(settings: Settings):
    async with EmbeddedServices(settings):
        pass
    (settings.data_dir / "postgres" / "postgresql.conf").write_text("no_such_setting = 1\n")
    with pytest.raises(ConfigurationError, match=r"PostgreSQL does not start: .*configuration file"):
        await EmbeddedServices(settings).start()
    assert not _processes(settings.data_dir)


async def test_machine_without_wheel_uses_its_newest_postgres(settings: Settings, monkeypatch: pytest.MonkeyPatch):
    if not list(embedded.SYSTEM_POSTGRES.glob("1[5-9]/bin/initdb")):
        pytest.skip("no PostgreSQL >= 15 on this machine")
    monkeypatch.setattr(embedded, "_wheel", lambda package, pattern, identity: [])
    given = settings.model_copy(update={"redis": settings.redis.model_copy(update={"url": "redis://cache/0"})})
    async with EmbeddedServices(given) as services:
        version = await _query(services.database_url, "SELECT current_setting('server_version_num')::int / 10000")
        assert version == max(int(path.name) for path in embedded.SYSTEM_POSTGRES.glob("1[5-9]"))
        assert await _query(services.database_url, "SELECT upper('ä')") == "Ä"


async def test_machine_without_any_postgres_says_what_to_do(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    monkeypatch.setattr(embedded, "_wheel", lambda package, pattern, identity: [])
    monkeypatch.setattr(embedded, "SYSTEM_POSTGRES", tmp_path)
    with pytest.raises(ConfigurationError, match="LECTERN_DATABASE__URL"):
        await EmbeddedServices(settings).start()


async def test_warm_start_takes_less_than_a_second(settings: Settings):
    async with EmbeddedServices(settings):
        pass
    started = time.monotonic()
    async with EmbeddedServices(settings):
        assert time.monotonic() - started < 1
