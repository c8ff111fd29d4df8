"""What is there for people alone: bars, colours, and a view that goes on."""

from __future__ import annotations

import re
from decimal import Decimal
from pathlib import Path
from typing import Any

import httpx2
import pytest

from bursar.cli.owner.reports import top
from bursar.sdk.resources.usage import Group, Sum, Summary
from tests.cli.terminals import Terminal
from tests.live import Installation

# Serving takes its time where other tests run.
pytestmark = pytest.mark.timeout(240)

_COLOUR = re.compile(r"\x1b\[(?:\d+;)*(?:3\d|4\d|9\d)(?:;\d+)*m")


def environment(owner: Installation) -> dict[str, str]:
    """What says where the shop is."""
    return {"BURSAR_BASE_URL": owner.url, "BURSAR_API_KEY": owner.secrets.provisioning_key}


# Which of them has colours at all.
@pytest.mark.parametrize(
    ("command", "is_coloured"),
    [("usage", True), ("billing", True), ("activity", True), ("top --once --hours 2", True)]
    + [(each, False) for each in ("keys list", "keys show 3", "status", "limits list", "--help")],
)
def test_no_command_has_colours_where_no_color_is_set(
    owner: Installation, command: str, is_coloured: bool
) -> None:
    for more, expected in (({}, is_coloured), ({"NO_COLOR": "1"}, False)):
        with Terminal(*command.split(), **environment(owner), **more) as terminal:
            assert terminal.wait() == 0, terminal.printed
            assert bool(_COLOUR.search(terminal.printed)) is expected, terminal.printed


def test_an_export_says_on_a_terminal_how_far_it_has_come(
    owner: Installation, tmp_path: Path
) -> None:
    file = tmp_path / "usage.jsonl"
    with Terminal("export", str(file), **environment(owner)) as terminal:
        assert terminal.wait() == 0, terminal.printed
    assert "━" in terminal.printed
    assert "3/3" in terminal.printed
    assert f"3 events are in {file}." in terminal.printed.replace("\r\n", "")
    with Terminal("export", str(file), **environment(owner)) as terminal:
        terminal.wait_for("[y/N]")
        terminal.type("n\n")
        assert terminal.wait() == 130
    assert file.read_text().count("\n") == 3


def test_top_says_what_came_since_the_last_look(tmp_path: Path) -> None:
    made = Installation(tmp_path / "data")
    try:
        made.start()
        with Terminal("top", "--once", **environment(made)) as terminal:
            assert terminal.wait() == 0, terminal.printed
        assert "0.00 USD in 0 requests" in terminal.printed
        _call(made)
        with Terminal("top", "--hours", "2", "--interval", "0.5", **environment(made)) as terminal:
            terminal.wait_for("sandbox/echo")
            assert "+0.00" not in terminal.printed
            _call(made)
            # A token in and one out, of the sandbox's prices.
            terminal.wait_for("+0.0000005")
            terminal.type("\x03")
            assert terminal.wait() == 130
    finally:
        made.close()


def _call(made: Installation) -> None:
    httpx2.post(
        f"{made.url}/v1/chat/completions",
        headers={"authorization": f"Bearer {made.secrets.inference_key}"},
        json={"model": "sandbox/echo", "messages": [{"role": "user", "content": "Hello"}]},
        timeout=20,
    ).raise_for_status()


def summary(costs: dict[int, str], *, other: str | None = None) -> Summary:
    """What keys have cost."""
    tokens: dict[str, Any] = dict.fromkeys(
        ("input_tokens", "cached_input_tokens", "output_tokens", "reasoning_tokens"), 0
    )

    def fields(cost: str) -> dict[str, Any]:
        return {"request_count": 1, "total_cost": cost, **tokens}

    groups = [
        Group.model_validate({"group": key, "name": f"k{key}", **fields(cost)})
        for key, cost in costs.items()
    ]
    return Summary.model_validate(
        {
            "group_by": "key",
            "starts_at": "2026-11-21T12:00:00Z",
            "ends_at": None,
            "total": fields(str(sum(map(Decimal, costs.values())))),
            "groups": [group.model_dump(mode="json") for group in groups],
            "other": None if other is None else Sum.model_validate(fields(other)).model_dump(),
        }
    )


def now(before: Summary, found: Summary) -> list[str]:
    """The column of what is new."""
    return [row["now"] for row in top._rows(found, before)]


def test_now_is_what_was_spent_between_two_looks() -> None:
    before = summary({1: "5.00", 2: "3.00", 3: "1.00"})
    assert now(before, before) == ["", "", ""]
    # The span moves on: what left it is no spending.
    assert now(before, summary({1: "5.25", 2: "2.00", 3: "1.00"})) == ["+0.25", "", ""]
    # Nothing was left out before: this one had spent nothing.
    assert now(before, summary({1: "5.00", 4: "0.50"})) == ["", "+0.50"]


def test_now_of_one_that_was_not_shown_before_is_not_its_whole_cost() -> None:
    before = summary({1: "5.00", 2: "3.00"}, other="2.90")
    found = summary({1: "5.10", 3: "3.01"}, other="3.00")
    assert now(before, found) == ["+0.10", "?", ""]
