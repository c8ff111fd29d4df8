"""The pages, and what fills their blocks."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from docs.generate import command_line, configuration, control_api, other_clients, python_sdk

DOCS = Path(__file__).parents[1]
COMMAND = "python -m docs.generate"
_BLOCK = re.compile(r"(<!-- generated: ([a-z-]+) -->\n).*?(<!-- end -->)", re.DOTALL)
BLOCKS: Mapping[str, Callable[[], Iterator[str]]] = {
    "settings": configuration.settings,
    "upstreams": configuration.upstreams,
    "sso-providers": configuration.providers,
    "sso-roles": configuration.grants,
    "counters": configuration.counters,
    "gauges": configuration.gauges,
    "routes": control_api.route_table,
    "parameters": control_api.parameters,
    "shapes": control_api.shapes,
    "dropped": control_api.dropped,
    "commands": command_line.commands,
    "sdk-calls": python_sdk.calls,
    "sdk-results": python_sdk.results,
    "sdk-inputs": python_sdk.inputs,
    "sdk-errors": python_sdk.errors,
    "venice-client": other_clients.venice_client,
    "venice-errors": other_clients.venice_errors,
    "cerevox-client": other_clients.cerevox_client,
    "cerevox-errors": other_clients.cerevox_errors,
}


def page_names() -> list[Path]:
    """The pages that have generated blocks."""
    return [page for page in sorted(DOCS.rglob("*.md")) if _BLOCK.search(page.read_text("utf-8"))]


def render(page: str) -> str:
    """A page's text with every block made anew."""

    def fill(block: re.Match[str]) -> str:
        lines = "\n".join(BLOCKS[block[2]]()).rstrip()
        return f"{block[1]}\n{lines}\n\n{block[3]}"

    return _BLOCK.sub(fill, page)


def main(arguments: list[str]) -> int:
    """Rewrite the pages, or with `--check` only compare them; returns the exit code."""
    stale = []
    for page in page_names():
        before = page.read_text("utf-8")
        after = render(before)
        if after == before:
            continue
        stale.append(page)
        if "--check" not in arguments:
            page.write_text(after, "utf-8")
    for page in stale:
        sys.stdout.write(f"{page.relative_to(DOCS.parent)}\n")
    return 1 if stale and "--check" in arguments else 0
