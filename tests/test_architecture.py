"""The rules of the house, each an assertion: who may import whom, where SQL, sockets, tasks and clocks may be."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent

# Which module may import which, through its front door. What would point backwards is contributed or announced.
ALLOWED = {
    "auth": set(),
    "profile": {"auth"},
    "classroom": {"auth", "profile"},
    "chat": {"classroom", "profile", "auth"},
    "content": {"classroom", "profile"},
    "content_worker": {"content"},
    "notifications": {"auth", "profile", "classroom", "chat", "content"},
    "analytics": {"auth", "profile", "classroom", "chat", "content"},
    "web": set(),
}
# Who writes a table; where two share one, the columns of the second are named.
OWNER = {
    "installation": "migrations",
    "schema_migrations": "server/migrate.py",
    "users": "auth",
    "users (profile_data, preferences)": "profile",  # auth writes the name once, when it makes the account
    "auth_sessions": "auth",
    "auth_letters": "auth",
    "auth_totp": "auth",
    "auth_recovery_codes": "auth",
    "courses": "classroom",
    "course_members": "classroom",
    "rooms": "classroom",
    "rooms (last_seq, state)": "server/realtime/log.py",
    "rooms (state, of the erased)": "server/realtime/personal.py",
    "room_members": "classroom",
    "room_events": "server/realtime/log.py",
    "room_events (body, of the erased)": "server/realtime/personal.py",
    "cmd_ids": "server/realtime/log.py",
    "read_marks": "chat",
    "outbox": "server/outbox.py",
    "idempotency_keys": "server/gateway/idempotency.py",
}
SQL_PLACES = {
    "server/database.py",
    "server/migrate.py",
    "server/outbox.py",
    "server/realtime/log.py",
    "server/realtime/personal.py",
    "server/gateway/idempotency.py",
    "server/demo.py",
    "server/verify/faults.py",  # pg_terminate_backend is a fault
}
# The composition root and the demo school are the two files of server/ that know features.
KNOW_FEATURES = {"server/app.py", "server/demo.py"}
# Where `except Exception` is right: the doors, and the loops that must outlive a failed turn.
CATCH_ALL = {
    "server/gateway/",
    "server/health.py",  # a probe must have an answer
    "server/realtime/namespace.py",
    "server/realtime/protocol.py",  # the socket door: every command is answered
    "server/realtime/log.py",  # one bad command must not fail the others of its batch
    "server/database.py",  # re-raised: only decides what becomes of the connection
    "server/tasks.py",
    "server/outbox.py",  # one consumer that fails must not stop the others
}
LAYERS = {"routes": 3, "sockets": 3, "jobs": 3, "service": 2, "store": 1}
SQL = re.compile(r"\s*(SELECT|INSERT|UPDATE|DELETE|WITH|CREATE|ALTER|DROP|TRUNCATE|LOCK)\s+\S+", re.ASCII)
WRITES = re.compile(r"\b(?:INSERT\s+INTO|UPDATE|DELETE\s+FROM)\s+(\w+)\b(?!\s*\()?", re.ASCII)


def sources() -> list[str]:
    return sorted(
        str(path.relative_to(ROOT))
        for top in ("server", "modules")
        for path in (ROOT / top).rglob("*.py")
        if "__pycache__" not in path.parts
    )


@cache
def tree(name: str) -> ast.Module:
    return ast.parse((ROOT / name).read_text(), name)


def imports(name: str) -> Iterator[str]:
    """Dotted names that a file imports at run time; imports under TYPE_CHECKING bind nothing."""
    typing_only = {
        id(node)
        for branch in ast.walk(tree(name))
        if isinstance(branch, ast.If) and ast.unparse(branch.test).endswith("TYPE_CHECKING")
        for node in ast.walk(branch)
    }
    for node in ast.walk(tree(name)):
        if id(node) in typing_only:
            continue
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def calls(name: str) -> Iterator[str]:
    for node in ast.walk(tree(name)):
        if isinstance(node, ast.Call):
            yield ast.unparse(node.func)


def module_of(name: str) -> str | None:
    """The feature that a file belongs to."""
    parts = Path(name).parts
    return parts[1] if parts[0] == "modules" and len(parts) > 2 else None


@pytest.mark.parametrize("name", [name for name in sources() if name.startswith("server/")])
def test_the_plumbing_knows_no_feature(name):
    if name not in KNOW_FEATURES:
        assert not [found for found in imports(name) if found.partition(".")[0] == "modules"]


@pytest.mark.parametrize("name", [name for name in sources() if module_of(name)])
def test_a_module_enters_another_only_through_its_front_door(name):
    own = module_of(name)
    assert own is not None
    for found in imports(name):
        parts = found.split(".")
        if parts[0] != "modules" or len(parts) < 2 or parts[1] == own:
            continue
        assert parts[1] in ALLOWED[own], f"{own} may not import {parts[1]}"
        inside = (ROOT / "modules" / parts[1] / f"{parts[2]}.py").exists() if len(parts) > 2 else False
        assert not inside, f"{found} is inside another module"


def test_the_table_of_allowed_imports_has_no_cycle():
    def reachable(module: str, seen: frozenset[str] = frozenset()) -> set[str]:
        assert module not in seen, f"a cycle through {module}"
        return {module} | {far for near in ALLOWED[module] for far in reachable(near, seen | {module})}

    for module in ALLOWED:
        reachable(module)


@pytest.mark.parametrize("name", [name for name in sources() if Path(name).stem in LAYERS and module_of(name)])
def test_inside_a_module_data_flows_from_the_doors_to_the_store(name):
    own, level = module_of(name), LAYERS[Path(name).stem]
    for found in imports(name):
        parts = found.split(".")
        if parts[:2] == ["modules", own] and len(parts) > 2 and parts[2] in LAYERS:
            assert LAYERS[parts[2]] < level, f"{name} imports {found}"


@pytest.mark.parametrize("name", [name for name in sources() if Path(name).stem in ("service", "store", "state")])
def test_services_and_stores_know_neither_http_nor_sockets(name):
    if module_of(name):
        assert not [found for found in imports(name) if found.startswith(("aiohttp", "socketio", "engineio"))]


@pytest.mark.parametrize("name", sources())
def test_sql_stands_only_where_it_belongs_and_is_never_built(name):
    if Path(name).name == "store.py" or name in SQL_PLACES:
        for node in ast.walk(tree(name)):
            if isinstance(node, ast.JoinedStr):
                text = "".join(str(part.value) for part in node.values if isinstance(part, ast.Constant))
                assert not SQL.match(text), f"line {node.lineno}: SQL is built from parts"
        return
    for node in ast.walk(tree(name)):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            for argument in node.args[:1]:
                if isinstance(argument, ast.Constant) and isinstance(argument.value, str):
                    assert not SQL.match(argument.value), f"line {node.lineno}: SQL outside a store"


@pytest.mark.parametrize("name", [name for name in sources() if name.endswith("store.py") or name in SQL_PLACES])
def test_a_table_is_written_only_by_its_owner(name):
    if name in ("server/demo.py", "server/database.py"):
        return  # the demo school fills every table; the pool writes none
    owner = module_of(name) or name
    for node in ast.walk(tree(name)):
        if not (isinstance(node, ast.Constant) and isinstance(node.value, str)):
            continue
        for table in WRITES.findall(node.value):
            owners = {place for key, place in OWNER.items() if key.split(" ")[0] == table}
            if owners:
                assert owner in owners, f"line {node.lineno}: {owner} writes {table} of {owners}"


def test_every_table_has_an_owner():
    statements = "\n".join(path.read_text() for path in sorted((ROOT / "migrations").glob("*.sql")))
    tables = set(re.findall(r"CREATE TABLE (?:IF NOT EXISTS )?(\w+)", statements))
    assert tables <= {key.split(" ")[0] for key in OWNER}


@pytest.mark.parametrize("name", sources())
def test_tasks_are_started_only_where_they_are_kept(name):
    if name != "server/tasks.py":
        started = [call for call in calls(name) if call.endswith(("create_task", "ensure_future"))]
        assert not [call for call in started if not call.startswith(("group.", "tasks."))]


@pytest.mark.parametrize("name", sources())
def test_only_the_realtime_package_writes_to_sockets(name):
    if name.startswith("server/realtime/"):
        return
    assert not [call for call in calls(name) if call.endswith((".send_str", ".send_bytes", "transport.write"))]


@pytest.mark.parametrize("name", sources())
def test_the_environment_is_read_only_by_the_settings(name):
    if name == "server/settings.py":
        return
    text = [ast.unparse(node) for node in ast.walk(tree(name)) if isinstance(node, ast.Attribute)]
    read = [found for found in text if found in ("os.environ", "os.getenv")]
    # Those who start processes hand the whole environment down to them; they read nothing from it.
    starters = ("supervisor.py", "confinement.py", "embedded.py", "verify/installation.py")
    assert not read or name.removeprefix("server/") in starters


@pytest.mark.parametrize("name", sources())
def test_the_time_of_day_comes_only_from_the_clock(name):
    if name in ("server/clock.py", "server/logs.py"):
        return  # a log record carries its own time
    told = ("datetime.now", "datetime.utcnow", "datetime.today", "date.today", "time.time", "time.time_ns")
    assert not [call for call in calls(name) if call.endswith(told)]


@pytest.mark.parametrize("name", sources())
def test_only_the_doors_catch_everything(name):
    if any(name.startswith(place) for place in CATCH_ALL):
        return
    for node in ast.walk(tree(name)):
        if isinstance(node, ast.ExceptHandler):
            caught = ast.unparse(node.type) if node.type else "everything"
            assert caught not in ("Exception", "everything"), f"line {node.lineno}: except {caught}"


@pytest.mark.parametrize("name", sources())
def test_a_file_has_a_name_of_its_own_and_a_size_to_read(name):
    stem = Path(name).stem
    assert stem not in ("utils", "common", "helpers", "base", "misc")
    assert stem == "__init__" or stem == "__main__" or stem not in sys.stdlib_module_names
    lines = (ROOT / name).read_text().count("\n")
    docstring = ast.get_docstring(tree(name)) or ""
    assert docstring, "no module docstring"
    assert lines <= 500 or "500 lines" in docstring, f"{lines} lines, and the docstring does not say why"


def test_every_file_imports_alone():
    """In one interpreter a file, each import in a fresh state: what only works after another import fails here."""
    names = [name.removesuffix(".py").replace("/", ".").removesuffix(".__init__") for name in sources()]
    program = (
        "import sys, importlib\n"
        "kept = set(sys.modules)\n"
        "for name in sys.argv[1:]:\n"
        "    importlib.import_module(name)\n"
        "    for loaded in [m for m in sys.modules if m.split('.')[0] in ('server', 'modules')]:\n"
        "        if loaded not in ('server.metrics',):  # its registry is one for the process\n"
        "            del sys.modules[loaded]\n"
    )
    names = [name for name in names if name != "server.__main__"]
    done = subprocess.run([sys.executable, "-c", program, *names], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
