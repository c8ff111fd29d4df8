"""What the guides tell people to type works, and prints what they say."""

from __future__ import annotations

import contextlib
import io
import os
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from tests.cli.conftest import Bursar
from tests.live import Installation
from tests.tidy.sources import ROOT

GUIDES = sorted((ROOT / "docs" / "guides").glob("*.md"))
_BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.DOTALL | re.MULTILINE)


class Block(NamedTuple):
    """A code block, and what the guide says that it prints; None: nothing is said of it."""

    language: str
    text: str
    printed: str | None
    line: int


def blocks(guide: Path) -> Iterator[Block]:
    """The blocks of a guide that people run, in their order."""
    text = guide.read_text("utf-8")
    found = list(_BLOCK.finditer(text))
    for number, block in enumerate(found):
        if block[1] not in ("python", "sh"):
            continue
        after = found[number + 1] if number + 1 < len(found) else None
        is_followed = after is not None and after[1] == "text"
        is_next = is_followed and not text[block.end() : after.start()].strip()  # type: ignore[union-attr]
        printed = after[2] if is_next and after is not None else None
        yield Block(block[1], block[2], printed, text.count("\n", 0, block.start()) + 1)


def test_there_are_guides_with_something_to_run() -> None:
    assert {guide.stem for guide in GUIDES} >= {"keys", "limits", "projects"}
    for guide in GUIDES:
        assert len(list(blocks(guide))) > 4, guide


# What a guide waits for comes within seconds; a busy machine is not a failing guide.
@pytest.mark.timeout(240)
@pytest.mark.usefixtures("_own_variables")
@pytest.mark.parametrize("kind", ["sqlite"])
@pytest.mark.parametrize("guide", GUIDES, ids=lambda guide: guide.stem)
def test_a_guide_does_what_it_says(
    guide: Path, made: Installation, bursar: Bursar, monkeypatch: pytest.MonkeyPatch
) -> None:
    made.start()
    monkeypatch.setenv("BURSAR_DATA_DIR", str(made.data_dir))
    monkeypatch.setenv("BASE_URL", made.url)
    monkeypatch.setenv("OPERATOR_KEY", made.secrets.operator_key)
    monkeypatch.setenv("PROVISIONING_KEY", made.secrets.provisioning_key)
    monkeypatch.setenv("INFERENCE_KEY", made.secrets.inference_key)
    monkeypatch.setenv("EMAIL", made.secrets.email)
    monkeypatch.setenv("PASSWORD", made.secrets.password)
    # Not the profiles and sign-ins of whoever runs the tests.
    monkeypatch.setenv("XDG_CONFIG_HOME", str(made.data_dir / "config"))
    # What a person would type is in files here.
    for file, secret in (("password.txt", "PASSWORD"), ("inference.key", "INFERENCE_KEY")):
        Path(file).write_text(f"{os.environ[secret]}\n", "utf-8")
    names: dict[str, Any] = {"__name__": guide.stem}
    for block in blocks(guide):
        if block.language == "sh":
            printed = "".join(commands(bursar, block.text, monkeypatch))
        else:
            out = io.StringIO()
            with contextlib.redirect_stdout(out):
                exec(compile(f"{chr(10) * block.line}{block.text}", guide, "exec"), names)  # noqa: S102
            printed = out.getvalue()
        if block.printed is not None:
            assert printed == block.printed, f"{guide.name}, line {block.line}"
    assert bursar("verify").code == 0


def commands(bursar: Bursar, script: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """What the commands of `bursar` print, one after the other; `< FILE` is their input."""
    for line in re.sub(r"\\\n\s*", "", script).splitlines():
        words = [os.path.expandvars(word) for word in shlex.split(line, comments=True)]
        if words and words[0] == "bursar":
            if "<" in words:
                *words, _, file = words
                monkeypatch.setattr("sys.stdin", io.StringIO(Path(file).read_text("utf-8")))
            done = bursar(*words[1:])
            assert done.code == 0, done.stderr
            yield done.stdout
