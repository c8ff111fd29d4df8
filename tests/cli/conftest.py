"""Running `bursar` in this process, and putting back what a command sets for its whole process."""

from __future__ import annotations

import io
import json
import logging
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2
import pytest

from bursar.cli import main
from tests import logs
from tests.live import SOURCE, Installation


@dataclass(frozen=True)
class Done:
    """What a command printed and how it ended."""

    code: int
    stdout: str
    stderr: str

    @property
    def json(self) -> Any:
        """The document on stdout."""
        assert self.code in (0, 1), self.stderr
        return json.loads(self.stdout)


Bursar = Callable[..., Done]


@pytest.fixture(autouse=True)
def process(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """A process of one's own, as far as a command can tell."""
    monkeypatch.chdir(tmp_path)
    # Whoever runs the tests may be signed in somewhere: the tests are not.
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    for name in ("BURSAR_API_KEY", "BURSAR_BASE_URL", "BURSAR_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    umask = os.umask(0o022)
    root = logging.getLogger()
    before = (root.handlers[:], root.level, logging.raiseExceptions)
    yield
    os.umask(umask)
    root.handlers[:], root.level, logging.raiseExceptions = before
    logs.set_up()


@pytest.fixture
def bursar(capsys: pytest.CaptureFixture[str]) -> Bursar:
    """Run `bursar` with these arguments."""

    def run(*arguments: object) -> Done:
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            main([str(argument) for argument in arguments])
        printed = capsys.readouterr()
        assert "Traceback" not in printed.out + printed.err
        code = ended.value.code
        return Done(code if isinstance(code, int) else 0, printed.out, printed.err)

    return run


@pytest.fixture(scope="session")
def lasting_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The data directory of an installation that no test changes."""
    folder = tmp_path_factory.mktemp("installation") / "data"
    subprocess.run(
        [sys.executable, "-c", "from bursar.cli import main; main()", "init"],
        env={**os.environ, "PYTHONPATH": str(SOURCE), "BURSAR_DATA_DIR": str(folder)},
        check=True,
        capture_output=True,
        timeout=60,
    )
    return folder


@pytest.fixture(params=["sqlite", "postgres"])
def installed(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, bursar: Bursar
) -> dict[str, Any]:
    """What `bursar init --json` printed, on each database in turn."""
    if request.param == "postgres":
        monkeypatch.setenv("BURSAR_DATABASE_URL", request.getfixturevalue("postgres_database"))
    made: dict[str, Any] = bursar("init", "--json").json
    return made


@pytest.fixture
def lines(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Give the next command these lines of standard input, which is no terminal."""

    def give(*given: str) -> None:
        monkeypatch.setattr("sys.stdin", io.StringIO("".join(f"{line}\n" for line in given)))

    return give


@pytest.fixture(scope="session")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    """A served installation in which three calls were made; tests add to it and take nothing."""
    made = Installation(tmp_path_factory.mktemp("shop") / "data")
    try:
        made.start()
        for model, words in (("echo", "hello"), ("echo", "hello there"), ("lorem", "more")):
            httpx2.post(
                f"{made.url}/v1/chat/completions",
                headers={"authorization": f"Bearer {made.secrets.inference_key}"},
                json={
                    "model": f"sandbox/{model}",
                    "messages": [{"role": "user", "content": words}],
                    "max_tokens": 20,
                },
                timeout=20,
            ).raise_for_status()
        assert len(made.rows()) == 3
        yield made
    finally:
        made.close()


@pytest.fixture
def owner(shop: Installation, monkeypatch: pytest.MonkeyPatch) -> Installation:
    """The shop, and a key of its account in the environment."""
    monkeypatch.setenv("BURSAR_BASE_URL", shop.url)
    monkeypatch.setenv("BURSAR_API_KEY", shop.secrets.provisioning_key)
    return shop
