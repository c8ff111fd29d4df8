"""What the documentation says is there is there, and what is there is documented."""

from __future__ import annotations

import ast
import re
import shlex
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml

from bursar import telemetry
from bursar.api import errors as control_errors
from bursar.api import routes
from bursar.api.usage import EventShape
from bursar.config import OTHER_ENV, Settings, UpstreamSettings
from bursar.core import errors
from bursar.core.refusals import Reason
from bursar.dialects.cerevox import routes as cerevox_routes
from bursar.dialects.venice import routes as venice_routes
from bursar.gateway.wire import answers
from bursar.store.tables import usage_events
from docs.generate import pages as generated
from tests.tidy.sources import ROOT, Source, called_name, file_names, repository

DOCS = ROOT / "docs"
REFERENCE = DOCS / "reference"
CODE = re.compile(r"[a-z][a-z0-9]*(_[a-z0-9]+)*")
_ENDS = ("|", "||", "&&", ">", "&")
PLACES = {"model endpoints": "gateway", "any request": "gateway", "control API": "api"}
# Where, beside the place itself, what it answers may be said.
_BENEATH = {
    "gateway": ("core", "store", "worker"),
    "api": ("adapters", "core", "edge", "service", "store"),
}

# How a code is said, and at which place of the call it stands; the class says the status.
_CLASSES = {
    name
    for module in (errors, answers)
    for name, kind in vars(module).items()
    if isinstance(kind, type) and issubclass(kind, errors.BursarError)
}
_SAID_BY = {
    **dict.fromkeys(_CLASSES - {"UpstreamRefused"}, 0),
    "InvalidAmount": 0,
    "_invalid": 0,
    "invalid": 0,
    "Problem": 1,
    "UpstreamRefused": 1,
    "_refuse": 1,
    "Fault": 1,
    "Failure": 1,
    "__init__": 0,
}


def page(name: str) -> str:
    return (DOCS / name).read_text("utf-8")


def block(text: str, language: str) -> list[str]:
    """The code blocks of a page in one language."""
    return re.findall(rf"^ *```{language}\n(.*?)^ *```$", text, re.DOTALL | re.MULTILINE)


# ── Errors ──────────────────────────────────────────────────────────────────────────────────────


@cache
def codes_in_the_source() -> dict[str, list[tuple[Source, ast.Call]]]:
    """Every code that the program can say, with the calls that say it."""
    found: dict[str, list[tuple[Source, ast.Call]]] = {}
    for source in repository():
        if source.package:
            for code, call in _codes(source):
                found.setdefault(code, []).append((source, call))
    for reason in Reason:
        found.setdefault(reason.code, [])
    return found


def _codes(source: Source) -> Iterator[tuple[str, ast.Call]]:
    constants = {
        node.targets[0].id: node.value
        for node in ast.walk(source.tree)
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name)
    }
    for node in ast.walk(source.tree):
        if isinstance(node, ast.Call) and called_name(node) in _SAID_BY:
            place = _SAID_BY[called_name(node)]
            argument: ast.AST | None = node.args[place] if len(node.args) > place else None
            if isinstance(argument, ast.Name):
                argument = constants.get(argument.id)
            if isinstance(argument, ast.Constant) and isinstance(argument.value, str):
                if CODE.fullmatch(argument.value):
                    yield argument.value, node


def described_codes() -> dict[str, str]:
    """The codes that have a heading, and the line under it that says where they are answered."""
    return dict(
        re.findall(r"^### `(\w+)`\n\n\*(.+)\*\n", page("reference/errors.md"), re.MULTILINE)
    )


def test_every_code_has_a_heading_and_every_heading_a_code() -> None:
    headings = re.findall(r"^### `(\w+)`$", page("reference/errors.md"), re.MULTILINE)
    assert sorted(headings) == sorted(codes_in_the_source())
    assert set(headings) == set(described_codes()), "a heading lacks the line with its statuses"


def statuses(call: ast.Call, package: str) -> set[int]:
    """The statuses with which a place answers what this call says; empty if that varies."""
    name = called_name(call)
    if name in ("Problem", "UpstreamRefused", "_refuse", "Fault"):
        status = call.args[0]
        return {status.value} if isinstance(status, ast.Constant) else set()
    kind: Any = {"_invalid": errors.Invalid, "invalid": errors.Invalid}.get(name) or getattr(
        errors, name, getattr(answers, name, errors.Invalid)
    )
    return _by_class(kind, package)


def _by_class(kind: type[errors.BursarError], package: str) -> set[int]:
    if package == "api":
        found = [
            status for known, status in control_errors.STATUSES.items() if issubclass(kind, known)
        ]
        return set(found)
    error = kind("code", "message")
    return {answers.refusal(error, request_id="")[0]}


@pytest.mark.parametrize("code", sorted(described_codes()))
def test_a_code_is_answered_with_the_status_that_is_described(code: str) -> None:
    claims = re.findall(r"(?:exit )?(\d+) ([a-zA-Z ]+?)(?: ·|$)", described_codes()[code])
    calls = codes_in_the_source()[code]
    reasons = {reason.error for reason in Reason if reason.code == code}
    for number, place in claims:
        package = PLACES.get(place)
        if package is None:
            continue
        possible = set[int]()
        for source, call in calls:
            if source.package in (package, *_BENEATH[package]):
                found = statuses(call, package)
                possible |= found or {int(number)}
        for kind in reasons:
            possible |= _by_class(kind, package)
        possible |= {control_errors.CODES[code]} if code in control_errors.CODES else set()
        assert int(number) in possible, f"{code}: {number} {place}"


# ── Generated parts ─────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("path", generated.page_names(), ids=lambda path: path.name)
def test_what_is_generated_is_up_to_date(path: Path) -> None:
    text = path.read_text("utf-8")
    assert generated.render(text) == text, f"run: .venv/bin/{generated.COMMAND}"


def test_every_generated_part_stands_somewhere() -> None:
    text = "".join(path.read_text("utf-8") for path in generated.page_names())
    for name in generated.BLOCKS:
        assert f"<!-- generated: {name} -->" in text


def test_every_setting_metric_and_route_is_described() -> None:
    settings = page("reference/settings.md")
    for name in (*Settings.model_fields, *UpstreamSettings.model_fields):
        assert f"| `{name}` |" in settings
    metrics = page("reference/metrics.md")
    for name, *_ in telemetry.COUNTERS:
        assert f"| `{name}_total` |" in metrics
    for name, _ in telemetry.GAUGES:
        assert f"| `{name}` |" in metrics
    api = page("reference/http-api.md")
    for route in routes.ROUTES:
        assert f"| `{route.method} {route.path}` |" in api


def test_every_model_endpoint_is_described() -> None:
    tree = next(s.tree for s in repository() if s.path == "src/bursar/gateway/app.py")
    paths = {
        node.value.decode()
        for node in ast.walk(tree)
        if isinstance(node, ast.Constant)
        and isinstance(node.value, bytes)
        and node.value.startswith(b"/v1/")
    }
    assert len(paths) >= 3
    for path in paths:
        assert re.search(
            rf"^\| `(GET|POST) {path}` \|", page("reference/http-api.md"), re.MULTILINE
        )


def test_every_route_of_a_dialect_is_described_with_its_parameters() -> None:
    text = page("reference/venice.md")
    for route in venice_routes.make(served=list, shows_totals=True):
        line = re.search(rf"^\| `{route.method} /api/v1{re.escape(route.path)}` \|.*", text, re.M)
        assert line, route.path
        assert set(re.findall(r"`\?(\w+)`", line[0])) == set(route.query), route.path
    source = next(s for s in repository() if s.path == "src/bursar/dialects/venice/errors.py")
    for code in re.findall(r'"([A-Z0-9_]{4,})"', source.text):
        assert f"`{code}`" in text, code
    text = page("reference/cerevox.md")
    for route in cerevox_routes.ROUTES:
        line = re.search(rf"^\| `{route.method} /v1{re.escape(route.path)}` \|.*", text, re.M)
        assert line, route.path
        assert set(re.findall(r"`\?(\w+)`", line[0])) == set(route.query), route.path


def test_every_field_of_a_usage_event_is_described() -> None:
    rows = re.findall(
        r"^\| (?:`(\w+)`)? ?\| `(\w+)` \|", page("reference/usage-events.md"), re.MULTILINE
    )
    assert {column for _, column in rows} == {column.name for column in usage_events.columns}
    assert {field for field, _ in rows if field} == set(EventShape.__annotations__)


# ── Names, commands and links ───────────────────────────────────────────────────────────────────


def pages() -> list[Source]:
    return [s for s in repository() if s.path == "README.md" or s.path.startswith("docs/")]


def test_every_test_that_is_named_exists() -> None:
    defined = {
        node.name
        for source in repository()
        if source.is_under("tests") and source.is_python
        for node in ast.walk(source.tree)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    }
    for source in pages():
        named = set(re.findall(r"`(test_\w+)`", source.text)) - {"test_docs"}
        assert named <= defined, f"{source.path}: {sorted(named - defined)}"


def test_every_metric_and_setting_that_is_named_exists() -> None:
    metrics = {name for name, *_ in (*telemetry.COUNTERS, *telemetry.GAUGES)}
    variables = {f"BURSAR_{name.upper()}" for name in Settings.model_fields}
    variables |= OTHER_ENV
    for source in pages():
        for name in re.findall(r"\bbursar_[a-z]+_[a-z_]+\b", source.text):
            assert name.removesuffix("_total") in metrics, f"{source.path}: {name}"
        for name in re.findall(r"\bBURSAR_[A-Z_]+[A-Z]\b", source.text):
            assert name in variables, f"{source.path}: {name}"


def test_a_default_that_is_named_in_passing_is_the_default() -> None:
    defaults = {
        name: field.default
        for kind in (Settings, UpstreamSettings)
        for name, field in kind.model_fields.items()
    }
    found = 0
    for source in pages():
        for name, number in re.findall(r"`(\w+)`,? \(?(\d[\d,]*)(?: m?s)?\)", source.text):
            if name in defaults:
                found += 1
                assert defaults[name] == int(number.replace(",", "")), f"{source.path}: {name}"
    assert found > 10


def test_every_code_that_is_linked_to_has_its_heading() -> None:
    known = set(described_codes())
    for source in pages():
        for anchor in re.findall(r"errors\.md#(\w+)\)", source.text):
            assert anchor in known, f"{source.path}: {anchor}"


def test_every_link_to_a_part_of_a_page_arrives() -> None:
    known = {source.path: set(_anchors(source.text)) for source in pages()}
    for source in pages():
        for target, anchor in re.findall(r"\]\((?!\w+:)([\w./-]*)#([\w-]+)\)", source.text):
            folder = Path(source.path).parent
            place = (ROOT / folder / target).resolve() if target else ROOT / source.path
            path = place.relative_to(ROOT).as_posix()
            assert anchor in known[path], f"{source.path}: {target}#{anchor}"


def _anchors(text: str) -> Iterator[str]:
    for title in re.findall(r"^#+ (.+)$", text, re.MULTILINE):
        yield re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-")


def shell_commands(text: str) -> Iterator[list[str]]:
    """The commands of a page's shell blocks, as words; what follows a pipe is another's."""
    for script in block(text, "sh"):
        for line in re.sub(r"\\\n\s*", "", script).splitlines():
            words = shlex.split(line, comments=True)
            while words and re.fullmatch(r"[A-Z_]+=.*", words[0]):
                words.pop(0)
            end = next((n for n, word in enumerate(words) if word in _ENDS), len(words))
            if words:
                yield words[:end]


def test_every_make_target_that_is_named_exists() -> None:
    makefile = (ROOT / "Makefile").read_text("utf-8")
    targets = set(re.findall(r"^([a-z]+):", makefile, re.MULTILINE))
    for source in pages():
        for words in shell_commands(source.text):
            if words[0] == "make":
                assert words[1] in targets, f"{source.path}: {' '.join(words)}"
        for target in re.findall(r"`make ([a-z]+)", source.text):
            assert target in targets, f"{source.path}: make {target}"


def test_every_command_and_option_that_is_named_exists() -> None:
    helps = dict(
        re.findall(
            r"^##+ `(bursar[a-z ]*)`\n\n```text\n(.*?)```",
            page("reference/command-line.md"),
            re.DOTALL | re.MULTILINE,
        )
    )
    for source in pages():
        for words in shell_commands(source.text):
            if words[0] in ("bursar", ".venv/bin/bursar"):
                path = _command(words, helps)
                assert path != "bursar" or len(words) == 1, f"{source.path}: {words}"
                for option in words:
                    if re.match(r"--[a-z]", option):
                        assert option in helps[path], f"{source.path}: {words}"


def _command(words: list[str], known: dict[str, str]) -> str:
    paths = (" ".join(["bursar", *words[1:end]]) for end in (3, 2, 1))
    return next(path for path in paths if path in known)


def test_every_example_of_settings_can_be_read() -> None:
    import tomllib

    for source in pages():
        for example in block(source.text, "toml"):
            found = tomllib.loads(example)
            for upstream in found.get("upstreams", ()):
                UpstreamSettings.model_validate(upstream)


def test_every_example_of_prices_can_be_loaded() -> None:
    from bursar.service.prices import files

    examples = [text for source in pages() for text in block(source.text, "yaml")]
    assert examples
    for example in examples:
        if "prices" in yaml.safe_load(example):
            assert files.parse(example, name="example.yaml", now_ms=0)


def test_every_test_that_a_page_names_is_there() -> None:
    tests = {
        node.name
        for source in repository()
        if source.path.startswith("tests/")
        for node in ast.walk(source.tree)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    }
    named = {name for source in pages() for name in re.findall(r"`(test_\w+)`", source.text)}
    assert len(named) > 100
    assert not named - tests


def test_every_kind_of_bad_input_has_its_test() -> None:
    page = (ROOT / "docs" / "explanation" / "bad-input.md").read_text("utf-8")
    rows = [line for line in page.splitlines() if line.startswith("| D-")]
    numbers = [int(number) for row in rows for number in re.findall(r"D-(\d+)", row.split("|")[1])]
    # Those between are of letters to other services' addresses, which are not sent.
    assert sorted(numbers) == [*range(75, 90), *range(106, 139)]
    assert [row for row in rows if not re.search(r"`test_\w+`", row)] == []


def test_every_page_is_in_the_navigation() -> None:
    navigation = (ROOT / "zensical.toml").read_text("utf-8")
    listed = set(re.findall(r'"([\w/-]+\.md)"', navigation))
    there = {
        name.removeprefix("docs/")
        for name in file_names()
        if name.startswith("docs/") and name.endswith(".md")
    }
    assert listed == there
