"""Bursar with everything on, as its users start it: `bursar init`, `prices load`, `serve`.

Every call is authenticated, held against a wallet and a key's credit limit, metered, journalled and
settled in a ledger. Knows the command line and the control API, nothing of what is inside.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from bench import processes
from bench.lab import Lab, Unavailable, pinned
from bench.targets import MODEL, Target, call_chat, serving
from tests.postgres import PostgresServer, PostgresUnavailable

COMMAND = (sys.executable, "-c", "from bursar.cli import main; main()")
COMMAND_S = 60.0
CREDIT_USD = "1000000"
TITLES = {"sqlite": "Bursar, SQLite", "postgres": "Bursar, PostgreSQL"}
POSTGRES_SETTINGS = {"shared_buffers": "128MB", "autovacuum_naptime": "1min"}
PRICES = f"""prices:
  - model: {MODEL}
    per_million: {{ input_tokens: "0.15", cached_input_tokens: "0.075", output_tokens: "0.60" }}
    context_window: 128000
    max_output_tokens: 16384
  - model: {MODEL}-paced
    per_million: {{ input_tokens: "0.15", cached_input_tokens: "0.075", output_tokens: "0.60" }}
    context_window: 128000
    max_output_tokens: 16384
"""


@dataclass(frozen=True, slots=True)
class Installation:
    """A Bursar that is set up but not running; `database_url` None is its own SQLite file."""

    name: str
    data_dir: Path
    database_url: str | None
    provisioning_key: str
    inference_key: str
    database_roots: tuple[int, ...]

    @property
    def environment(self) -> dict[str, str]:
        """What its processes need to know."""
        return {"BURSAR_DATABASE_URL": self.database_url} if self.database_url else {}


@contextmanager
def start_postgres(lab: Lab) -> Iterator[PostgresServer]:
    """Run a PostgreSQL beside the load, as durable as in production.

    It gives way to the load, as if it had a machine of its own: its work counts, its turns do not.
    (`loads.measure` sees to that.)
    """
    server = PostgresServer(fsync=True, settings=POSTGRES_SETTINGS)
    try:
        with pinned(lab.cores.load):
            server.__enter__()
    except PostgresUnavailable as error:
        raise Unavailable(str(error)) from error
    try:
        yield server
    finally:
        server.__exit__()


@contextmanager
def install(
    lab: Lab, name: str, *, suffix: str = "", postgres: PostgresServer | None = None
) -> Iterator[Installation]:
    """Set Bursar up on a database of its own; raise `Unavailable` where that fails."""
    data_dir = lab.workdir / f"bursar-{name.replace(' ', '-')}{suffix}"
    data_dir.mkdir()
    if postgres is None or postgres.process is None:
        yield _install(lab, name, data_dir, None, ())
        return
    with postgres.database() as url:
        yield _install(lab, name, data_dir, url, (postgres.process.pid,))


def _install(
    lab: Lab, name: str, data_dir: Path, database_url: str | None, roots: tuple[int, ...]
) -> Installation:
    (data_dir / "bursar.toml").write_text(
        f'[[upstreams]]\nname = "bench"\nbase_url = "http://127.0.0.1:{lab.upstream_port}/v1"\n'
        f'models = ["{MODEL}*"]\n'
    )
    prices = data_dir / "prices.yaml"
    prices.write_text(PRICES)
    bare = Installation(name, data_dir, database_url, "", "", roots)
    made = json.loads(_run(bare, "init", "--json", "--credit", CREDIT_USD))
    _run(bare, "prices", "load", str(prices))
    keys = (made["provisioning_key"], made["inference_key"])
    return Installation(name, data_dir, database_url, *keys, roots)


def _run(installation: Installation, *words: str) -> str:
    command = [*COMMAND, *words, "--data-dir", str(installation.data_dir)]
    done = subprocess.run(
        command,
        capture_output=True,
        text=True,
        timeout=COMMAND_S,
        env=processes.environment(installation.environment),
        check=False,
    )
    if done.returncode:
        said = (done.stderr or done.stdout).strip() or f"exit status {done.returncode}"
        raise Unavailable(f"bursar {words[0]} failed: {said.splitlines()[-1][:300]}")
    return done.stdout


@contextmanager
def serve(lab: Lab, installation: Installation, *, key: str | None = None) -> Iterator[Target]:
    """Run the installation's server; without `key` make one with a credit limit to call with."""
    port = processes.free_port()
    command = [*COMMAND, "serve", "--data-dir", str(installation.data_dir), "--port", str(port)]

    def is_ready() -> bool:
        return processes.call(port, "/readyz")[0] == 200

    with serving(
        installation.name,
        command,
        lab=lab,
        port=port,
        env=installation.environment,
        is_ready=is_ready,
    ) as process:
        key = key or _make_key(port, installation.provisioning_key)
        status, body = call_chat(port, key)
        if status != 200:
            raise Unavailable(f"{installation.name} refuses the bench: {status} {body[:300]!r}")
        yield Target(
            name=installation.name,
            port=port,
            key=key,
            roots=(process.pid,),
            database_roots=installation.database_roots,
            settles_late=True,
        )


def _make_key(port: int, provisioning_key: str) -> str:
    status, body = processes.call(
        port,
        "/v1/account/keys",
        method="POST",
        body=json.dumps({"name": "bench", "credit_limit": 500_000}).encode(),
        headers={
            "Authorization": f"Bearer {provisioning_key}",
            "Content-Type": "application/json",
        },
    )
    if status not in (200, 201):
        raise Unavailable(f"no key could be made: {status} {body[:300]!r}")
    return str(json.loads(body)["key"])
