"""The command line where only the base install is: no package of the server."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tomllib

import pytest

from tests.cli.conftest import SOURCE, Done
from tests.live import Installation
from tests.tidy.sources import ROOT

# What a package is imported as, where that is not what it is called.
_NAMES = {"argon2-cffi": "argon2", "pyyaml": "yaml", "sqlalchemy[asyncio]": "sqlalchemy"}
_PROGRAM = """
import sys
blocked = set(sys.argv.pop(1).split(","))

class Missing:
    def find_spec(self, name, path=None, target=None):
        if name in blocked:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Missing())
from bursar.cli import main
main()
"""


def blocked() -> str:
    """The names of everything that the server needs and the base install has not."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    wanted = [each.partition(">")[0] for each in project["optional-dependencies"]["server"]]
    names = [_NAMES.get(name, name).replace("-", "_") for name in wanted]
    assert len(names) > 15
    return ",".join([*names, "starlette"])


def run(*arguments: str, stdin: str = "", **environment: str) -> Done:
    """Run a command without the server's packages."""
    done = subprocess.run(
        [sys.executable, "-c", _PROGRAM, blocked(), *arguments],
        env={**os.environ, "PYTHONPATH": str(SOURCE), **environment},
        input=stdin,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert "Traceback" not in done.stderr, done.stderr
    return Done(done.returncode, done.stdout, done.stderr)


@pytest.mark.timeout(240)
def test_an_owner_needs_nothing_of_the_server(shop: Installation) -> None:
    signed_in = run("login", shop.url, "--with-key", stdin=shop.secrets.provisioning_key)
    assert signed_in.code == 0, signed_in.stderr
    for command in (["status"], ["usage"], ["keys", "list"], ["audit"], ["top", "--once"]):
        done = run(*command)
        assert done.code == 0, done.stderr
        assert done.stdout
    refused = run("keys", "show", "99", "--json")
    assert refused.code == 3
    assert json.loads(refused.stderr)["error"]["request_id"]
    said = run("chat", "hello", "there", BURSAR_API_KEY="bsk_nonsense", BURSAR_BASE_URL=shop.url)
    assert (said.code, said.stdout) == (4, "")


@pytest.mark.timeout(240)
def test_what_needs_the_server_says_what_to_do() -> None:
    assert run("--help").code == 0
    nobody = run("balance")
    assert nobody.code == 2
    assert "bursar login URL" in nobody.stderr
    done = run("verify")
    assert done.code == 5
    assert "pip install 'bursar[server]'" in done.stderr
