"""What `--json` prints keeps its fields: their names and types are in `json_fields.json`.

A field may come, with `RENEW_JSON_FIELDS=1` and a look at the difference; none may go.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx2
import pytest

from bursar import Bursar as Client
from tests.cli.conftest import Bursar
from tests.cli.terminals import commands
from tests.live import Installation, served

KEPT = Path(__file__).with_name("json_fields.json")
RENEW = "RENEW_JSON_FIELDS"
HOW = (
    f"The fields of --json are not those of {KEPT.name}. If that is meant (a field may come, none "
    f"may go): {RENEW}=1 pytest tests/cli/test_json_fields.py, and commit the difference."
)
# Objects whose names are data, not fields.
MAPS = {
    *("labels", "features", "quantities", "per_million", "per_unit", "rows", "checked"),
    *("before", "after", "skipped", "unpriced", "details"),
}
PRICES = """
prices:
  - model: gpt-4o-mini
    per_million: { input_tokens: "0.15", output_tokens: "0.60" }
    tiers:
      - above_input_tokens: 200000
        per_million: { input_tokens: "0.30" }
"""

# Serving takes its time where other tests run.
pytestmark = pytest.mark.timeout(400)


def form(values: list[Any]) -> Any:
    """The one form of all these: an object of its fields, a list of what is in it, or types."""
    objects = [value for value in values if isinstance(value, dict)]
    if objects:
        names = dict.fromkeys(name for each in objects for name in each)
        found = {
            name: _field(name, [each[name] for each in objects if name in each]) for name in names
        }
        return {"or": "null", **found} if None in values else found
    lists = [value for value in values if isinstance(value, list)]
    if lists:
        inner = form([each for value in lists for each in value])
        return [inner, "or null"] if None in values else [inner]
    kinds = {"null" if value is None else type(value).__name__ for value in values}
    return " | ".join(sorted(kinds)) or "nothing"


def _field(name: str, values: list[Any]) -> Any:
    maps = [value for value in values if isinstance(value, dict)]
    if name not in MAPS or not maps:
        return form(values)
    # Nothing is said of a map's values: their names come and go with what was used.
    return "a map | null" if None in values else "a map"


def steps(folder: Path) -> list[tuple[str, list[str]]]:
    """Every command on the host, once or more often, so that each of its fields has something."""
    prices, file = folder / "prices.yaml", folder / "backup"
    prices.write_text(PRICES)
    return [
        ("prices load", [str(prices)]),
        ("prices import", ["openai", "--model", "gpt-4o"]),
        ("prices list", []),
        ("prices explain", ["sandbox/echo"]),
        ("accounts create", ["Acme", "--feature", "beta=true"]),
        ("accounts list", []),
        ("accounts show", ["1"]),
        ("accounts update", ["2", "--name", "Acme Ltd"]),
        ("accounts suspend", ["2"]),
        ("accounts resume", ["2"]),
        ("accounts cancel", ["2", "--yes"]),
        ("credit grant", ["1", "5.00", "--note", "Invoice 7"]),
        ("credit correct", ["1", "-1.00", "--reason", "typo"]),
        ("plans create", ["Pro"]),
        ("plans set", ["2", "key", "requests", "minute", "--default", "60", "--most", "600"]),
        ("plans set", ["2", "account", "cost", "month", "--most", "10.00"]),
        ("plans list", []),
        ("plans show", ["2"]),
        ("plans rename", ["2", "Pro 27"]),
        ("plans remove", ["2", "key", "requests", "minute", "--yes"]),
        ("plans delete", ["2", "--yes"]),
        ("projects create", ["Search", "--label", "team=search"]),
        ("projects update", ["1", "--name", "Find"]),
        ("projects add-member", ["1", "1"]),
        ("projects members", ["1"]),
        ("limits set", ["project:1", "cost", "month", "--limit", "5.00", "--soft", "4.00"]),
        ("limits set", ["key:3", "requests", "minute", "--limit", "60"]),
        ("limits list", []),
        ("projects list", []),
        ("projects show", ["1"]),
        ("keys create", ["--name", "ci", "--project", "1", "--expires", "2040-01-01T00:00:00Z"]),
        ("keys create", ["--name", "rescue", "--kind", "provisioning", "--user", "1"]),
        ("keys list", []),
        ("keys show", ["3"]),
        ("keys update", ["4", "--limit", "5.00", "--label", "a=b", "--model", "gpt-4*"]),
        ("keys rotate", ["4", "--grace", "60"]),
        ("keys delete", ["4", "--yes"]),
        ("explain", ["3", "sandbox/echo", "--prompt-tokens", "10"]),
        ("explain", ["3", "nobody-serves-this", "--prompt-tokens", "10"]),
        ("status", []),
        ("balance", []),
        ("activity", ["--fresh"]),
        ("usage", ["--by", "key"]),
        ("usage", ["--by", "model", "--count", "1"]),
        ("usage", ["--by", "user", "--to", "2040-01-01"]),
        ("billing", []),
        ("audit", []),
        ("top", ["--hours", "24"]),
        ("export", [str(folder / "usage.csv")]),
        ("export", ["-"]),
        ("limits log", []),
        ("limits remove", ["key:3", "requests", "minute", "--yes"]),
        ("projects remove-member", ["1", "1", "--yes"]),
        ("projects delete", ["1", "--yes"]),
        ("users invite", ["ada@example.com"]),
        ("users invitations", []),
        ("users withdraw", ["2", "--yes"]),
        ("users list", []),
        ("users show", ["1"]),
        ("users update", ["1", "--role", "owner"]),
        ("users remove", ["2", "--yes"]),
        ("people list", []),
        ("people show", ["1"]),
        ("people sign-out", ["1", "--yes"]),
        ("people disable", ["1", "--yes"]),
        ("people enable", ["1"]),
        ("completion", ["bash"]),
        ("doctor", []),
        ("verify", []),
        ("backup", [str(file)]),
    ]


def documents(text: str) -> list[Any]:
    """What was printed: one document, or a line for each."""
    return [json.loads(text)] if text.startswith("{\n") else list(map(json.loads, text.split("\n")))


class Notes:
    """What each command has printed so far."""

    def __init__(self, bursar: Bursar) -> None:
        self._bursar = bursar
        self.printed: dict[str, list[Any]] = {}

    def run(self, words: str, *arguments: str) -> None:
        """Run a command with `--json`, and note its documents."""
        done = self._bursar(*words.split(), *arguments, "--json")
        assert done.code in (0, 1), (words, done.stderr)
        self.note(words, done.stdout)

    def note(self, words: str, text: str) -> None:
        """Note what was printed; each part of it has to be a document."""
        self.printed.setdefault(words, []).extend(documents(text.strip()))

    @property
    def forms(self) -> dict[str, Any]:
        """The forms, by command."""
        return {words: form(printed) for words, printed in sorted(self.printed.items())}


def use(made: Installation) -> None:
    """Make a call that is sold, and one that a limit refuses."""
    made.run("limits", "set", "key:3", "requests", "hour", "--limit", "1")
    for code in (200, 429):
        answer = httpx2.post(
            f"{made.url}/v1/chat/completions",
            headers={"authorization": f"Bearer {made.secrets.inference_key}"},
            json={"model": "sandbox/echo", "messages": [{"role": "user", "content": "Hello"}]},
            timeout=20,
        )
        assert answer.status_code == code, answer.text
    made.run("limits", "remove", "key:3", "requests", "hour", "--yes")
    assert len(made.rows()) == 1


def invite_somebody(made: Installation) -> None:
    """Somebody is invited, and accepts what the letter says: they are user 2."""
    letter = made.attempt("users", "invite", "grace@example.com").stderr
    token = letter.partition("#")[2].split()[0]
    with Client(made.secrets.provisioning_key, base_url=made.url) as client:
        client.auth.accept_invitation(token, password="correct horse battery staple")


def on_a_server(made: Installation, notes: Notes, lines: Callable[..., None]) -> None:
    """The commands that are about a server."""
    secrets = made.secrets
    lines(secrets.password)
    notes.run("login", made.url, "--email", secrets.email, "--profile", "me")
    for profile in ("inference", "provisioning", "operator"):
        lines(getattr(secrets, f"{profile}_key"))
        notes.run("login", made.url, "--with-key", "--profile", profile)
        notes.run("status", "--profile", profile)
        if profile == "inference":
            notes.run("chat", "--profile", profile, "Hello")
        notes.run("logout", "--profile", profile)
    notes.run("logout", "--profile", "me")


@pytest.fixture
def notes(
    tmp_path: Path, bursar: Bursar, lines: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> Notes:
    """Every command has printed its JSON."""
    found = Notes(bursar)
    with served("--json", BURSAR_DATA_DIR=str(tmp_path / "first")) as server:
        pass
    found.note("serve", "".join(server.stdout))
    found.run("init", "--data-dir", str(tmp_path / "second"))
    made = Installation(tmp_path / "data")
    try:
        made.start()
        use(made)
        invite_somebody(made)
        on_a_server(made, found, lines)
        made.stop()
        with monkeypatch.context() as patch:
            patch.setenv("BURSAR_DATA_DIR", str(made.data_dir))
            for words, arguments in steps(tmp_path):
                found.run(words, *arguments)
            found.run("restore", str(tmp_path / "backup"), "--replace")
    finally:
        made.close()
    return found


def test_the_fields_of_json_are_those_that_are_kept_of_every_command(notes: Notes) -> None:
    assert set(notes.printed) == set(commands()), "a command is never run with --json here"
    text = json.dumps(notes.forms, indent=1) + "\n"
    if os.environ.get(RENEW):
        KEPT.write_text(text, "utf-8")
    assert json.loads(text) == json.loads(KEPT.read_text("utf-8")), HOW


def test_a_form_says_what_changed() -> None:
    assert form([{"a": 1, "b": None}, {"a": "x", "b": [{"c": True}]}]) == {
        "a": "int | str",
        "b": [{"c": "bool"}, "or null"],
    }
    assert form([{"a": {"b": 1}}, {"a": None}]) == {"a": {"or": "null", "b": "int"}}
    assert form([{"labels": {"x": "y"}}, {"labels": None}]) == {"labels": "a map | null"}
    assert form([[]]) == ["nothing"]
