"""`bursar explain`: what would become of a request.

Owns what the command takes and shows. Must not know rules; `service.limits.explain` does.
"""

from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from bursar.cli import failures, output
from bursar.cli.session import MAX_ID, Session

if TYPE_CHECKING:
    from bursar.api.limits.explain import ExplanationShape
    from bursar.config import Settings
    from bursar.service.limits.explain import Explanation, Serving
    from bursar.store.database import Database

_COLUMNS: Final = ("name", "limit", "used", "leased", "left", "needs", "says", "resets_at")

KeyId = Annotated[int, typer.Argument(metavar="KEY", min=1, max=MAX_ID, help="The key's id.")]
Model = Annotated[str, typer.Argument(metavar="MODEL", help="The model that is asked.")]


def explain(
    session: Session,
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
    account: Annotated[
        int, typer.Option("--account", metavar="ID", min=1, max=MAX_ID, help="Whose key.")
    ] = 1,
) -> None:
    """Say what would become of a request: which limits apply and which of them would refuse.

    Nothing is asked of an upstream, held or charged. Exit code 0: it would be let through. 1: it
    would be refused.

    \b
    bursar explain 3 gpt-4o-mini --prompt-tokens 1200 --max-tokens 500
    bursar explain 3 gpt-4o-mini --prompt-bytes 4096 --json
    """

    async def work(database: "Database") -> "Explanation":
        from bursar.service import accounts
        from bursar.service.limits import explain

        async with database.read() as tx:
            await accounts.get(tx, account_id=account)
            return await explain.explain(
                tx,
                account_id=account,
                question=question,
                serving=serving,
                now_ms=database.clock_ms(),
            )

    from bursar.api.limits.explain import body_bytes, shape
    from bursar.service.limits.explain import Question

    size = body_bytes(prompt_tokens, prompt_bytes)
    question = Question(key_id, model, size, endpoint, max_tokens, choices)
    serving = _serving(session.settings())
    found = shape(session.run(work))
    if session.out.is_json:
        session.out.show(found)
    else:
        _print(session, found)
    if not found["verdict"]["is_allowed"]:
        raise typer.Exit(failures.FOUND)


def _print(session: Session, found: "ExplanationShape") -> None:
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
    session.out.show(fields)
    rows = [{**limit, "says": _says(limit)} for limit in found["limits"]]
    output.say("")
    session.out.show_list("limits", rows, columns=_COLUMNS, empty="No limit applies.")


def _says(limit: Any) -> str:
    if limit["would_refuse"]:
        return "no"
    return "held" if limit["is_held"] else "yes"


def _serving(settings: "Settings") -> "Serving":
    """Who would serve a model, by the settings alone: no upstream is connected to."""
    from bursar.gateway.routing import Router, Upstream, sandbox

    built_in = sandbox()
    upstreams = [
        # Whatever is a client will do: nothing is sent.
        Upstream(each.name, built_in.client, (), each.models, each.rename)
        for each in settings.upstreams
    ]
    return Router([*upstreams, built_in] if settings.sandbox_enabled else upstreams).places
