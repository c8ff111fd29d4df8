"""Usage, money and calls on a terminal and for programs: the server's figures, laid out."""

from __future__ import annotations

import csv
import io
import json
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from bursar import Bursar as Client
from bursar.cli import charts
from tests.cli.conftest import Bursar
from tests.cli.terminals import Terminal
from tests.live import Installation

# Serving takes its time where other tests run.
pytestmark = pytest.mark.timeout(240)


@pytest.fixture
def client(owner: Installation) -> Client:
    """The same account by the SDK, whose figures are the server's."""
    return Client(owner.secrets.provisioning_key, base_url=owner.url)


def test_figures_are_the_servers_to_the_last_digit(
    owner: Installation, bursar: Bursar, client: Client
) -> None:
    with client:
        left = client.billing.balance().balance
        total = client.usage.summary(group_by="model").total
    assert Decimal(bursar("balance", "--json").json["balance"]) == left
    assert bursar("balance").stdout == f"{left} USD\n"
    shown = bursar("usage", "--json").json
    assert Decimal(shown["total"]["total_cost"]) == total.total_cost
    assert sum(Decimal(group["total_cost"]) for group in shown["groups"]) == total.total_cost
    activity = bursar("activity", "--fresh", "--json").json
    assert Decimal(activity["total_stats"]["total_cost"]) == total.total_cost
    billing = bursar("billing", "--count", 1000, "--json").json
    assert sum(Decimal(row["amount"]) for row in billing["transactions"]) == left
    assert Decimal(billing["balance"]) == left
    products = billing["month"]["products"]
    assert sum(Decimal(each["cost"]) for each in products) == total.total_cost
    assert (
        Decimal(bursar("billing", "--month", "2020-01", "--json").json["month"]["total_cost"]) == 0
    )
    assert bursar("billing", "--month", "soon").code == 2
    top = bursar("top", "--hours", "24", "--json").json
    assert Decimal(top["key"]["total"]["total_cost"]) == total.total_cost


def test_tables_have_a_line_for_each_and_a_bar(owner: Installation, bursar: Bursar) -> None:
    rows = _lines(bursar("usage").stdout, "sandbox/")
    assert [row[0] for row in rows] == ["sandbox/lorem", "sandbox/echo"]
    assert len(rows[0][-1]) == 30
    assert set(rows[0][-1]) == {"█"}
    assert len(rows[1][-1]) < 30
    assert _lines(bursar("usage", "--by", "key").stdout, "First inference key")
    assert _lines(bursar("activity").stdout, "sandbox/lorem")
    assert _lines(bursar("top", "--hours", "2").stdout, "sandbox/lorem")
    one = bursar("usage", "--count", "1").stdout
    assert "(others)" in one
    assert "Nothing was used." in bursar("usage", "--model", "gpt-none").stderr
    for row in ("grant", "usage", "gateway"):
        assert _lines(bursar("billing").stdout, row)
    assert "\x1b" not in bursar("usage").stdout


def test_bars_never_show_something_as_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdout", io.TextIOWrapper(io.BytesIO(), encoding="utf-8"))
    assert charts.bars([]) == []
    assert charts.bars([0, 0]) == ["", ""]
    longest, tiny, none = charts.bars([Decimal(10**9), Decimal("0.000000001"), Decimal(0)])
    assert (longest, none) == ("█" * 30, "")
    assert tiny == "▏"
    assert charts.bars([3, 2])[1] == "█" * 20
    monkeypatch.setattr("sys.stdout", io.TextIOWrapper(io.BytesIO(), encoding="ascii"))
    assert charts.bars([2, 1]) == ["#" * 30, "#" * 15]
    assert charts.fitted("#" * 30, 10) == "#" * 10
    assert (charts.fitted("#", 10), charts.fitted("", 10)) == ("#", "")


def test_an_export_has_every_event_once(
    owner: Installation, bursar: Bursar, client: Client, tmp_path: Path
) -> None:
    with client:
        events = client.usage.events().all()
    file = tmp_path / "usage.csv"
    assert bursar("export", file, "--json").json == {
        "file": str(file),
        "format": "csv",
        "events": len(events),
    }
    rows = list(csv.DictReader(io.StringIO(file.read_text())))
    assert [row["id"] for row in rows] == [event.id for event in events]
    assert sum(Decimal(row["cost"]) for row in rows) == sum(event.cost for event in events)
    assert not file.stat().st_mode & 0o077
    lines = bursar("export", "-", "--format", "jsonl").stdout.splitlines()
    assert [json.loads(line)["id"] for line in lines] == [event.id for event in events]
    narrow = bursar("export", "-", "--format", "jsonl", "--model", "sandbox/echo").stdout
    assert {json.loads(line)["model"] for line in narrow.splitlines()} == {"sandbox/echo"}
    assert (
        bursar("export", "-", "--from", "2020-01-01", "--to", "2020-01-02").stdout.count("\n") == 1
    )


def test_an_export_replaces_no_file_unasked_and_leaves_none_half_done(
    owner: Installation, bursar: Bursar, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "usage.jsonl"
    file.write_text("mine")
    assert bursar("export", file).code == 2
    assert file.read_text() == "mine"
    monkeypatch.setenv("BURSAR_BASE_URL", "http://127.0.0.1:1")
    assert bursar("export", file, "--yes").code == 5
    monkeypatch.setenv("BURSAR_BASE_URL", owner.url)
    monkeypatch.setattr("json.dumps", _fail)
    assert bursar("export", file, "--yes").code == 5
    monkeypatch.undo()
    assert file.read_text() == "mine"
    assert [path.name for path in tmp_path.iterdir() if path.name != "config"] == [file.name]


def _fail(*_: object, **__: object) -> str:
    raise OSError(28, "No space left on device")


def test_what_a_spreadsheet_would_run_is_text_in_an_export() -> None:
    from bursar.cli.owner.reports.export import _cell

    assert _cell("=1+1") == "'=1+1"
    assert _cell("@x") == "'@x"
    assert _cell("sandbox/echo") == "sandbox/echo"
    assert _cell({"a": True}) == '{"a": true}'


def test_chat_that_sells_nothing_prints_nothing(
    owner: Installation, bursar: Bursar, lines: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BURSAR_API_KEY", owner.secrets.inference_key)
    # What the other tests count stays as it was: nothing is sold here.
    done = bursar("chat", "Hello", "there", "--model", "nobody-serves-this")
    assert (done.code, done.stdout) == (3, "")
    assert done.stderr.startswith("bursar: model: The model does not exist. (req_")
    lines("")
    assert bursar("chat").code == 2
    monkeypatch.setenv("BURSAR_API_KEY", owner.secrets.provisioning_key)
    refused = bursar("chat", "Hello")
    assert refused.code == 4
    assert "inference key" in refused.stderr


def test_top_and_questions_are_for_a_terminal(owner: Installation, bursar: Bursar) -> None:
    environment = {"BURSAR_BASE_URL": owner.url, "BURSAR_API_KEY": owner.secrets.provisioning_key}
    with Terminal("top", "--hours", "2", "--interval", "0.5", **environment) as terminal:
        terminal.wait_for("sandbox/lorem")
        terminal.type("\x03")
        assert terminal.wait() == 130
    made = bursar("keys", "create", "--name", "gone", "--json").json
    for answer, code in (("n", 130), ("y", 0)):
        with Terminal("keys", "delete", str(made["id"]), **environment) as terminal:
            terminal.wait_for("for good?")
            terminal.type(f"{answer}\n")
            assert terminal.wait() == code
    assert bursar("keys", "show", made["id"]).code == 3


def test_chat_prints_the_answer_as_it_comes(tmp_path: Path, bursar: Bursar, lines: Any) -> None:
    made = Installation(tmp_path / "data")
    try:
        made.start()
        environment = {"BURSAR_BASE_URL": made.url, "BURSAR_API_KEY": made.secrets.inference_key}
        with pytest.MonkeyPatch.context() as patch:
            for name, value in environment.items():
                patch.setenv(name, value)
            done = bursar("chat", "Hello", "there", "--max-tokens", "50")
            assert done.stdout == "Hello there\n"
            assert "2 tokens in, 2 out." in done.stderr
            lines("From a pipe")
            assert bursar("chat").stdout == "From a pipe\n"
            whole = bursar("chat", "Hello", "--json").json
            assert (whole["choices"][0]["message"]["content"], whole["cost"]) == (
                "Hello",
                "0.0000005",
            )
        with Terminal("chat", "--system", "Be brief", **environment) as terminal:
            terminal.wait_for(">")
            terminal.type("Bon jour\n")
            terminal.wait_for("tokens in")
            assert terminal.printed.count("Bon jour") == 2
            terminal.type("\n")
            assert terminal.wait() == 0
        assert [row.outcome for row in made.rows()] == ["ok"] * 4
        made.verify()
    finally:
        made.close()


def test_the_audit_log_says_who_did_what_here_and_there(
    owner: Installation, bursar: Bursar
) -> None:
    there = bursar("keys", "create", "--name", "audited", "--json").json
    host = ("--data-dir", owner.data_dir)
    bursar(*host, "keys", "update", there["id"], "--disable")
    target = ("--target", f"key:{there['id']}")
    found = bursar("audit", *target, "--json").json
    assert [event["action"] for event in found["events"]] == ["key.update", "key.create"]
    assert [event["actor"] for event in found["events"]] == ["command line", "key:2"]
    assert [event["address"] for event in found["events"]] == ["", "127.0.0.1"]
    assert there["secret"] not in json.dumps(found)
    assert found == bursar(*host, "audit", *target, "--json").json
    shown = bursar("audit", *target)
    assert "is_enabled True → False" in shown.stdout
    assert found["head"]["hash"] in shown.stderr
    assert len(bursar("audit", "--count", 1, "--json").json["events"]) == 1
    assert bursar("audit", "--action", "key.dance").code == 2
    assert "Nothing of this" in bursar("audit", "--actor", "user:99").stderr


def _lines(printed: str, words: str) -> list[list[str]]:
    return [line.split() for line in printed.splitlines() if words in line]
