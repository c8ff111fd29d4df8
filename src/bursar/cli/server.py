"""`bursar init` and `bursar serve`: an installation's beginning, and its work.

Owns what is set up, and what is printed of it: secrets once, and calls that are ready to paste.
Must not know how requests are served; `bootstrap` does.
"""

import ipaddress
import json
import secrets
import signal
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated

import typer

from bursar.cli import output
from bursar.cli.session import Session, quiet_logs, set_up
from bursar.core.errors import Conflict
from bursar.core.money import parse_usd

if TYPE_CHECKING:
    from bursar.config import Settings
    from bursar.service.accounts import Installation
    from bursar.store.database import Database

_EMAIL = "admin@localhost"
_MODEL = "sandbox/echo"

Host = Annotated[
    str | None,
    typer.Option(metavar="ADDRESS", help="The address to listen on. [BURSAR_HOST; 127.0.0.1]"),
]
Port = Annotated[
    int | None, typer.Option(metavar="PORT", help="The port. [BURSAR_PORT; default: 8080]")
]
Credit = Annotated[
    str | None,
    typer.Option(metavar="USD", help="Starting credit of the first account. [BURSAR_CREDIT; 100]"),
]


def init(
    session: Session,
    host: Host = None,
    port: Port = None,
    credit: Credit = None,
    email: Annotated[str, typer.Option(help="The first user's e-mail address.")] = _EMAIL,
) -> None:
    """Set up an installation and print its secrets once.

    That is a database, an account with credit, a user and a key of each kind.

    \b
    bursar init
    bursar init --json --data-dir /var/lib/bursar > secrets.json
    """
    quiet_logs()
    found = session.settings(host=host, port=port, credit=credit)
    made = set_up(found, _initialise(found, email, is_required=True))
    if made is not None:
        _show_secrets(session, made, found.url)
        output.say("This is the only time that they are shown. Start with: bursar serve")


def serve(
    session: Session,
    host: Host = None,
    port: Port = None,
    credit: Credit = None,
    workers: Annotated[
        int | None, typer.Option(metavar="N", help="Server processes; above 1 on PostgreSQL only.")
    ] = None,
    behind_proxy: Annotated[
        bool | None,
        typer.Option("--behind-proxy", help="A proxy in front ends TLS."),
    ] = None,
) -> None:
    """Serve; on an empty database, set up first and print the secrets once.

    \b
    bursar serve
    bursar serve --port 9000 --data-dir /var/lib/bursar
    BURSAR_DATABASE_URL=postgresql+asyncpg://… bursar serve --workers 4
    """
    with _stopped_in_order():
        found = session.settings(
            host=host, port=port, credit=credit, workers=workers, behind_proxy=behind_proxy
        )
        _serve(session, found)


def exposure(found: "Settings") -> str:
    """What is wrong with where the server listens; empty when nothing is."""
    if found.behind_proxy or _is_loopback(found.host):
        return ""
    return (
        f"{found.host} can be reached from other machines, and keys would travel unencrypted. "
        "Put a proxy with TLS in front and say --behind-proxy, or listen on 127.0.0.1."
    )


def _serve(session: Session, found: "Settings") -> None:
    from bursar import bootstrap, telemetry

    metrics = telemetry.Metrics()
    telemetry.set_up_logs(log_format=found.log_format, level=found.log_level, metrics=metrics)
    warning = exposure(found)
    if warning:
        output.say(f"Warning: {warning}")
    # Before the set-up: where the address is taken, nothing is made and no secret shown in vain.
    listener, found = bootstrap.listen(found)
    made = set_up(found, _initialise(found, _EMAIL, is_required=False))
    if made is not None:
        _show_secrets(session, made, found.url)
        output.say("This is the only time that they are shown.")
    on_ready = _announce(made, found.url, is_json=session.out.is_json)
    bootstrap.serve(found, listener, metrics=metrics, on_ready=on_ready)


@contextmanager
def _stopped_in_order() -> Iterator[None]:
    """Take SIGTERM as asyncio takes Ctrl-C, which undoes what has begun; but for a good end.

    For the time before the server has the signals: Python's own answer would be to drop dead. That
    goes for whoever was started with Ctrl-C ignored too, as a shell's script has what it starts
    beside itself.
    """
    is_told = False
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)

    def tell(_number: int, _frame: object) -> None:
        nonlocal is_told
        is_told = True
        signal.raise_signal(signal.SIGINT)

    before = signal.signal(signal.SIGTERM, tell)
    try:
        yield
    except BaseException:
        # Whatever it is: a module that is interrupted while it loads may make an error of that.
        if not is_told:
            raise
    finally:
        signal.signal(signal.SIGTERM, before)


def _initialise(
    found: "Settings", email: str, *, is_required: bool
) -> "Callable[[Database], Awaitable[Installation | None]]":
    credit_nanos = parse_usd(found.credit)

    async def work(database: "Database") -> "Installation | None":
        from bursar.gateway.upstreams.sandbox import SANDBOX_PRICES
        from bursar.service import prices

        made = None
        try:
            if is_required or await _is_empty(database):
                made = await _make_installation(database, email, credit_nanos)
        except Conflict as refusal:
            # Of several servers that start at once on an empty database, one sets it up.
            if is_required or refusal.code != "already_initialised":
                raise
        if found.sandbox_enabled:
            async with database.write() as tx:
                await prices.seed(tx, terms=SANDBOX_PRICES, source="sandbox")
        return made

    return work


async def _is_empty(database: "Database") -> bool:
    from bursar.service import accounts

    async with database.read() as tx:
        return not await accounts.list_accounts(tx, after_id=0, limit=1)


async def _make_installation(database: "Database", email: str, credit_nanos: int) -> "Installation":
    from bursar.adapters import passwords
    from bursar.service import accounts

    async with database.write() as tx:
        return await accounts.bootstrap_installation(
            tx,
            email=email,
            password=None,
            credit_nanos=credit_nanos,
            random_bytes=secrets.token_bytes,
            hash_password=passwords.hash_password,
        )


def _show_secrets(session: Session, made: "Installation", url: str) -> None:
    session.out.show(
        {
            "operator_key": made.operator_key,
            "provisioning_key": made.provisioning_key,
            "inference_key": made.inference_key,
            "email": made.email,
            "password": made.password,
            "account_id": made.account_id,
            "url": url,
        }
    )


def _announce(made: "Installation | None", url: str, *, is_json: bool) -> Callable[[], None]:
    def on_ready() -> None:
        if made is not None and not is_json:
            output.write(_examples(url, made.inference_key))
        output.say(f"Bursar serves on {url} (Ctrl-C ends it).")

    return on_ready


def _examples(url: str, key: str) -> str:
    body = json.dumps({"model": _MODEL, "messages": [{"role": "user", "content": "Hello"}]})
    return f"""
A first call, with curl:

curl {url}/v1/chat/completions \\
  -H 'Authorization: Bearer {key}' \\
  -H 'Content-Type: application/json' \\
  -d '{body}'

The same with OpenAI's client (pip install openai):

python3 - <<'EOF'
from openai import OpenAI
client = OpenAI(base_url="{url}/v1", api_key="{key}")
answer = client.chat.completions.create(
    model="{_MODEL}", messages=[{{"role": "user", "content": "Hello"}}]
)
print(answer.choices[0].message.content)
EOF
"""


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
