"""`bursar chat`: a call of a model, to see that a key works and what a call costs.

Owns where the words come from and how the answer is shown while it comes.
"""

import sys
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from bursar.cli import output
from bursar.cli.owner.shapes import shape, usd
from bursar.cli.places.owner import Owner

if TYPE_CHECKING:
    from bursar.sdk.resources.chat import ChatUsage

_MODEL: Final = "sandbox/echo"
_MOST_CHARACTERS: Final = 1_000_000


def chat(
    owner: Owner,
    words: Annotated[
        list[str] | None, typer.Argument(metavar="WORDS...", help="What to say; absent: stdin.")
    ] = None,
    model: Annotated[str, typer.Option(help="The model to ask.")] = _MODEL,
    system: Annotated[str | None, typer.Option(help="What the model is told first.")] = None,
    max_tokens: Annotated[
        int | None, typer.Option(metavar="N", min=1, help="The most tokens of an answer.")
    ] = None,
) -> None:
    """Ask a model, with an inference key. The answer comes as it is made.

    On a terminal and without words it is a conversation, until an empty line.

    \b
    BURSAR_API_KEY=bsk_… bursar chat Hello
    bursar chat --profile calls --model gpt-4o-mini "Say it in French: good morning"
    cat report.txt | bursar chat --profile calls --system "Sum this up" --json
    """
    if not owner.is_server:
        raise typer.BadParameter(
            "A model is asked through a server: name one with --url, and a key with BURSAR_API_KEY."
        )
    said: list[dict[str, str]] = []
    if system:
        said.append({"role": "system", "content": system})
    if words or not sys.stdin.isatty():
        text = " ".join(words) if words else sys.stdin.read(_MOST_CHARACTERS)
        said.append({"role": "user", "content": _not_empty(text)})
        _answer(owner, said, model, max_tokens)
        return
    if owner.out.is_json:
        raise typer.BadParameter("Say something: with --json there is no conversation.")
    _talk(owner, said, model, max_tokens)


def _talk(owner: Owner, said: list[dict[str, str]], model: str, max_tokens: int | None) -> None:
    while True:
        text = typer.prompt(">", default="", show_default=False, prompt_suffix=" ", err=True)
        if not text.strip():
            return
        said.append({"role": "user", "content": text})
        answer = _answer(owner, said, model, max_tokens)
        said.append({"role": "assistant", "content": answer})


def _answer(owner: Owner, said: list[dict[str, str]], model: str, max_tokens: int | None) -> str:
    complete = owner.client.chat.complete
    if owner.out.is_json:
        whole = complete(model=model, messages=said, max_tokens=max_tokens)
        owner.out.show({**shape(whole), "cost": None if whole.cost is None else usd(whole.cost)})
        return whole.text
    parts: list[str] = []
    used: ChatUsage | None = None
    options: dict[str, Any] = {"stream_options": {"include_usage": True}}
    with complete(
        model=model, messages=said, max_tokens=max_tokens, stream=True, **options
    ) as stream:
        for chunk in stream:
            parts.append(chunk.text)
            used = chunk.usage or used
            print(_printable(chunk.text), end="", flush=True)
    print(flush=True)
    if used is not None:
        output.say(f"{used.prompt_tokens} tokens in, {used.completion_tokens} out.")
    return "".join(parts)


def _not_empty(text: str) -> str:
    if not text.strip():
        raise typer.BadParameter("Say something.")
    return text


def _printable(text: str) -> str:
    """Without the characters that would steer a terminal: the text is a stranger's."""
    if not sys.stdout.isatty():
        return text
    return "".join(c for c in text if c.isprintable() or c in "\n\t")
