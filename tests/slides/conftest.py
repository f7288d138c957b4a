"""A store on SQLite and one on a real PostgreSQL, for the same tests."""

from __future__ import annotations

import io
import os
import pwd
import secrets
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from PIL import Image
from sqlalchemy import create_engine, text

from app.slides.database import Database
from app.slides.library import Library
from app.slides.store import Store
from app.slides.uploads import Files
from tests.drawn import draw_tissue

PLACES = ("/usr/lib/postgresql", "/usr/local/pgsql", "/opt/homebrew/opt")
MAX_BYTES = 64 * 2**20


def _binaries() -> Path | None:
    """Where PostgreSQL's server programs lie; Debian keeps them off the PATH."""
    if (initdb := shutil.which("initdb")) is not None:
        return Path(initdb).resolve().parent
    found = sorted(path for place in PLACES for path in Path(place).glob("*/bin/initdb"))
    return found[-1].parent if found else None


def _unprivileged() -> str | None:
    """PostgreSQL refuses to run as root: somebody else then."""
    if os.geteuid() != 0:
        return None
    return next((user.pw_name for user in pwd.getpwall() if user.pw_name in ("postgres", "nobody")), None)


def _free_port() -> int:
    with closing(socket.socket()) as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[str]:
    """Address of a PostgreSQL cluster of our own, on loopback."""
    pytest.importorskip("psycopg", reason="the extra postgres is not installed")
    programs, user = _binaries(), _unprivileged()
    if programs is None:
        pytest.skip("no PostgreSQL server here (Debian: apt-get install postgresql)")
    if os.geteuid() == 0 and user is None:
        pytest.skip("PostgreSQL does not run as root, and there is no user postgres or nobody")
    folder, password, port = Path(tempfile.mkdtemp(prefix="karyon-pg-")), secrets.token_hex(8), _free_port()
    (folder / "password").write_text(password)
    if user:
        for path in (folder, folder / "password"):
            shutil.chown(path, user)

    def run(*command: str) -> None:
        subprocess.run(command, check=True, user=user, cwd=folder, stdout=subprocess.DEVNULL, timeout=120)

    data, options = str(folder / "data"), f"-h 127.0.0.1 -p {port} -c unix_socket_directories= -c fsync=off"
    try:
        run(
            *(str(programs / "initdb"), "-D", data, "-U", "karyon", "-A", "scram-sha-256"),
            *("--pwfile", str(folder / "password"), "-E", "UTF8", "--locale=C", "--no-sync"),
        )
        run(str(programs / "pg_ctl"), "-D", data, "-w", "-l", str(folder / "log"), "-o", options, "start")
        try:
            yield f"postgresql://karyon:{password}@127.0.0.1:{port}"
        finally:
            run(str(programs / "pg_ctl"), "-D", data, "-w", "-m", "immediate", "stop")
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def postgres_url(postgres_server: str) -> Iterator[str]:
    """An empty database."""
    name = f"t{secrets.token_hex(6)}"
    address = postgres_server.replace("postgresql:", "postgresql+psycopg:")
    engine = create_engine(f"{address}/postgres", isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        connection.execute(text(f"CREATE DATABASE {name}"))
    yield f"{postgres_server}/{name}"
    with engine.connect() as connection:
        connection.execute(text(f"DROP DATABASE {name} WITH (FORCE)"))
    engine.dispose()


@pytest.fixture(params=["sqlite", "postgres"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Where the store lies: every test that asks for it runs on both databases."""
    if request.param == "postgres":
        return str(request.getfixturevalue("postgres_url"))
    return f"sqlite:///{tmp_path / 'store.sqlite'}"


@pytest.fixture
def database(url: str) -> Iterator[Database]:
    opened = Database.open(url)
    yield opened
    opened.close()


@pytest.fixture
def store(database: Database) -> Store:
    return Store(database)


@pytest.fixture
def library(store: Store, tmp_path: Path) -> Library:
    (tmp_path / "root").mkdir()
    return Library(store, Files(tmp_path / "files", MAX_BYTES, store.room_bytes), tmp_path / "root")


@pytest.fixture
def sqlite_library(tmp_path: Path) -> Iterator[Library]:
    """Where the kind of database does not matter."""
    (tmp_path / "root").mkdir()
    opened = Database.open(f"sqlite:///{tmp_path / 'one.sqlite'}")
    store = Store(opened)
    yield Library(store, Files(tmp_path / "files", MAX_BYTES, store.room_bytes), tmp_path / "root")
    opened.close()


@pytest.fixture
def png() -> bytes:
    file = io.BytesIO()
    Image.fromarray(draw_tissue(120, 160)).save(file, "png")
    return file.getvalue()
