"""The command line: `python -m server up | serve | migrate | config | seed | verify`.

Parses, starts a loop and reports; decides nothing.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import signal
import sys
from collections.abc import Coroutine
from pathlib import Path
from typing import Any

from server.logs import configure_logging
from server.settings import ConfigurationError, Settings, load_settings, planted_bugs

BAD_CONFIGURATION = 2


def main(arguments: list[str] | None = None) -> int:
    """Run one command; returns the exit code, 2 for a configuration that cannot be used."""
    options = _parser().parse_args(arguments)
    try:
        settings = load_settings(**_overrides(options))
        configure_logging(settings.log)
        return int(options.command(settings, options))
    except ConfigurationError as error:
        print(f"lectern: {error}", file=sys.stderr)
        return BAD_CONFIGURATION


def up(settings: Settings, options: argparse.Namespace) -> int:
    """Everything on this machine: embedded services, migration, replicas."""
    from server.supervisor import up as supervise

    return _run(supervise(settings, replicas=options.replicas, demo=options.demo))


def serve(settings: Settings, options: argparse.Namespace) -> int:
    """One server process on services that run already."""
    from server.app import serve as serve_until

    _require_services(settings)

    async def until_stopped() -> int:
        stop = asyncio.Event()
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, stop.set)
        if options.watch_fd is not None:
            _stop_at_end_of(options.watch_fd, stop)
        try:
            await serve_until(settings, stop, schema_patience=options.await_schema)
        except OSError as error:
            raise ConfigurationError(
                f"cannot listen on {settings.http.host}:{settings.http.port}: {error.strerror}"
            ) from error
        return 0

    return _run(until_stopped())


def migrate(settings: Settings, options: argparse.Namespace) -> int:
    """Bring the schema up to date, and with --demo fill in the demo school."""
    from server.migrate import migrate as apply

    _require_services(settings)

    async def both() -> int:
        applied = await apply(settings.database)
        if applied:
            print(f"lectern: {applied} migration(s) applied", file=sys.stderr)
        return await _seed(settings) if options.demo else 0

    return _run(both())


def seed(settings: Settings, options: argparse.Namespace) -> int:
    """Create the demo school; does nothing where it is there already."""
    _require_services(settings)
    return _run(_seed(settings))


def config(settings: Settings, options: argparse.Namespace) -> int:
    """Print the configuration as it is understood, without secrets."""
    shown = settings.model_copy(update={"secret": "***", "previous_secrets": ("***",) * len(settings.previous_secrets)})
    print(shown.model_dump_json(indent=2))
    return 0


def verify(settings: Settings, options: argparse.Namespace) -> int:
    """Prove the guarantees: a random schedule of faults on private services. Exit code 1 when a promise was broken."""
    from server.verify.command import verify as carry_out

    seed = options.seed if options.seed is not None else int.from_bytes(os.urandom(3))
    run = carry_out(
        minutes=options.minutes, seed=seed, replicas=options.replicas, say=print, bugs=",".join(sorted(planted_bugs()))
    )
    return _run(run)


async def _seed(settings: Settings) -> int:
    from server.database import Database
    from server.demo import seed_demo

    database = Database(settings.database)
    try:
        await seed_demo(database, settings)
    finally:
        await database.close()
    return 0


def _require_services(settings: Settings) -> None:
    for name, url in (("database", settings.database.url), ("redis", settings.redis.url)):
        if not url:
            raise ConfigurationError(f"{name}.url must be set here; `scripts/run` starts a private one")


def _stop_at_end_of(descriptor: int, stop: asyncio.Event) -> None:
    """Stop when the process at the other end of a pipe is gone: no server outlives its supervisor."""
    loop = asyncio.get_running_loop()

    def readable() -> None:
        if not os.read(descriptor, 1024):
            loop.remove_reader(descriptor)
            stop.set()

    os.set_blocking(descriptor, False)
    loop.add_reader(descriptor, readable)


def _run(work: Coroutine[Any, Any, int]) -> int:  # Any: what a coroutine could be sent
    try:
        import uvloop
    except ImportError:
        return asyncio.run(work)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(work)


def _overrides(options: argparse.Namespace) -> dict[str, Any]:  # Any: values of the settings tree
    http = {key: getattr(options, key) for key in ("host", "port") if getattr(options, key, None) is not None}
    overrides: dict[str, Any] = {"http": http} if http else {}
    if getattr(options, "data", None) is not None:
        overrides["data_dir"] = options.data
    return overrides


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="lectern", description="The back end of a live e-learning school.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    everything = commands.add_parser("up", help=up.__doc__)
    everything.add_argument("--replicas", type=int, default=1, help="server processes, on the ports P, P+1, …")
    everything.add_argument("--demo", action="store_true", help="create the demo school")
    everything.set_defaults(command=up)
    one = commands.add_parser("serve", help=serve.__doc__)
    one.add_argument("--watch-fd", type=int, help="stop at the end of this pipe")
    one.add_argument("--await-schema", type=float, default=0.0, metavar="SECONDS", help="time for who migrates now")
    one.set_defaults(command=serve)
    for listening in (everything, one):
        listening.add_argument("--host", help="address to listen on")
        listening.add_argument("--port", type=int, help="port to listen on")
    schema = commands.add_parser("migrate", help=migrate.__doc__)
    schema.add_argument("--demo", action="store_true", help="create the demo school")
    schema.set_defaults(command=migrate)
    commands.add_parser("config", help=config.__doc__).set_defaults(command=config)
    commands.add_parser("seed", help=seed.__doc__).set_defaults(command=seed)
    faults = commands.add_parser("verify", help=verify.__doc__)
    faults.add_argument("--minutes", type=float, default=5.0, help="how long the schedule takes")
    faults.add_argument("--seed", type=int, help="the same seed makes the same choice of faults")
    faults.add_argument("--replicas", type=int, default=2, help="server processes")
    faults.set_defaults(command=verify)
    for command in commands.choices.values():
        command.add_argument("--data", type=Path, help="where data is kept (data_dir)")
    return parser


if __name__ == "__main__":
    sys.exit(main())
