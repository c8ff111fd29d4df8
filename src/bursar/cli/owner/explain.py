"""`bursar explain`: what would become of a request.

Owns what the command takes and shows.
"""

from typing import Annotated, Any, Final

import typer

from bursar.cli import failures, output
from bursar.cli.owner.shapes import shape
from bursar.cli.places.owner import Owner
from bursar.cli.session import MAX_ID

_COLUMNS: Final = ("name", "limit", "used", "leased", "left", "needs", "says", "resets_at")

KeyId = Annotated[int, typer.Argument(metavar="KEY", min=1, max=MAX_ID, help="The key's id.")]
Model = Annotated[str, typer.Argument(metavar="MODEL", help="The model that is asked.")]


def explain(
    owner: Owner,
    key_id: KeyId,
    model: Model,
    prompt_tokens: Annotated[
        int | None, typer.Option(metavar="N", help="The prompt's tokens, four bytes each.")
    ] = None,
    prompt_bytes: Annotated[
        int | None, typer.Option(metavar="N", help="Or the bytes of the request's body.")
    ] = None,
    max_tokens: Annotated[
        int | None, typer.Option(metavar="N", help="The most tokens of an answer.")
    ] = None,
    choices: Annotated[int, typer.Option(metavar="N", help="How many answers.")] = 1,
    endpoint: Annotated[
        str, typer.Option(help="chat.completions or embeddings.")
    ] = "chat.completions",
) -> None:
    """Say what would become of a request: which limits apply and which of them would refuse.

    Nothing is asked of an upstream, held or charged. Exit code 0: it would be let through. 1: it
    would be refused.

    \b
    bursar explain 3 gpt-4o-mini --prompt-tokens 1200 --max-tokens 500
    bursar explain 3 gpt-4o-mini --prompt-bytes 4096 --json
    """
    found = shape(
        owner.client.limits.explain(
            key_id=key_id,
            model=model,
            prompt_tokens=prompt_tokens,
            prompt_bytes=prompt_bytes,
            max_tokens=max_tokens,
            choices=choices,
            endpoint=endpoint,
        )
    )
    if owner.out.is_json:
        owner.out.show(found)
    else:
        _print(owner, found)
    if not found["verdict"]["is_allowed"]:
        raise typer.Exit(failures.FOUND)


def _print(owner: Owner, found: dict[str, Any]) -> None:
    verdict, needs = found["verdict"], found["needs"]
    said = "It would be let through."
    if not verdict["is_allowed"]:
        said = f"It would be refused: {verdict['status']} {verdict['code']}. {verdict['message']}"
    elif not verdict["is_certain"]:
        said = "It would probably be let through; see what is held, and where the key may be used."
    fields: dict[str, Any] = {"verdict": said}
    if needs is not None:
        fields["costs_at_most"] = needs["cost"]
        fields["tokens"] = needs["tokens"]
        fields["longest_answer"] = needs["max_tokens"]
        fields["affordable_answer"] = found["affordable_max_tokens"]
        fields["affordable_requests"] = found["affordable_requests"]
    owner.out.show(fields)
    rows = [{**limit, "says": _says(limit)} for limit in found["limits"]]
    output.say("")
    owner.out.show_list("limits", rows, columns=_COLUMNS, empty="No limit applies.")


def _says(limit: Any) -> str:
    if limit["would_refuse"]:
        return "no"
    return "held" if limit["is_held"] else "yes"
