"""The one ASGI application: model endpoints first, everything else to the control plane.

Owns the switch by path and the model list. Paths match byte for byte and undecoded, so that no
spelling of a path reaches a handler without its checks.
"""

from collections.abc import Awaitable, Mapping
from functools import partial
from types import MappingProxyType
from typing import Any, Final
from urllib.parse import unquote

import msgspec

from bursar.core.errors import NotFound
from bursar.core.prices import Price, format_rate
from bursar.gateway.asgi import App, Receive, Scope, Send
from bursar.gateway.caller import Caller
from bursar.gateway.forward import Gateway
from bursar.gateway.http.names import Names
from bursar.gateway.http.outbox import Outbox
from bursar.gateway.http.patience import Patience
from bursar.gateway.http.server import Protocol
from bursar.gateway.wire import answers
from bursar.gateway.wire.calls import CHAT, EMBEDDINGS
from bursar.gateway.wire.faces import OURS, Face

CHAT_PATH: Final = b"/v1/chat/completions"
_POST: Final = {CHAT_PATH: CHAT, b"/v1/embeddings": EMBEDDINGS}
_MODELS: Final = b"/v1/models"
_NO_FACES: Final[Mapping[bytes, Face]] = MappingProxyType({})
_TLS_ALONE: Final = ("strict-transport-security", "max-age=31536000")
_encode = msgspec.json.Encoder(decimal_format="number").encode


class Application:
    """Serves the gateway's paths and hands every other one on.

    `faces` are those of dialects, by what their paths have in front of ours.
    """

    def __init__(
        self, gateway: Gateway, control: App, faces: Mapping[bytes, Face] = _NO_FACES
    ) -> None:
        self._gateway = gateway
        self._control = control
        self._calls = {
            prefix + path: (endpoint, face)
            for prefix, face in {b"": OURS, **faces}.items()
            for path, endpoint in _POST.items()
        }
        # The calls that may take the short way, by their targets.
        self.targets = {
            path: partial(gateway.begin, endpoint, face)
            for path, (endpoint, face) in self._calls.items()
        }

    def __call__(self, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        """Serve one request."""
        if scope["type"] != "http":
            return self._control(scope, receive, send)
        path: bytes = scope["raw_path"]
        found = self._calls.get(path)
        if found is not None:
            endpoint, face = found
            caller = Caller(scope, receive, send)
            if scope["method"] == "POST":
                return self._gateway.serve(endpoint, face, caller)
            return self._not_allowed(caller, b"POST", face)
        if path == _MODELS or path.startswith(_MODELS + b"/"):
            return self._models(Caller(scope, receive, send), path)
        return self._control(scope, receive, send)

    async def _models(self, caller: Caller, path: bytes) -> None:
        """The models that are priced and served; no key is needed to read prices."""
        if caller.scope["method"] not in ("GET", "HEAD"):
            await self._not_allowed(caller, b"GET, HEAD", OURS)
            return
        request_id = self._gateway.next_id()
        served = self._gateway.planner.served()
        if path == _MODELS:
            listed = {"object": "list", "data": [_model(each) for each in served]}
            await _send_json(caller, listed, request_id)
            return
        # Clients write the slash in a name as it is, or as %2F.
        wanted = unquote(path.removeprefix(_MODELS + b"/").decode("ascii"), errors="replace")
        found = [price for price in served if price.model == wanted]
        if found:
            await _send_json(caller, _model(found[0]), request_id)
        else:
            missing = NotFound("model_not_found", "The model does not exist.", param="model")
            await caller.answer(*answers.refusal(missing, request_id=request_id))

    async def _not_allowed(self, caller: Caller, allowed: bytes, face: Face) -> None:
        request_id = self._gateway.next_id()
        status, headers, body = answers.refusal(
            answers.not_allowed(), request_id=request_id, word=face.word
        )
        await caller.answer(status, [*headers, (b"allow", allowed)], body)


def uvicorn_options(
    app: Application,
    *,
    patience: Patience | None = None,
    names: Names | None = None,
    is_encrypted: bool = False,
) -> dict[str, Any]:
    """The settings under which uvicorn serves `app`, as `names` have it.

    Where callers come by TLS (`is_encrypted`), browsers are told to come by nothing else.
    """
    names = names or Names()
    return {
        "app": app,
        # The application is a plain function that returns what is awaited: nothing to inspect.
        "interface": "asgi3",
        "http": partial(
            Protocol,
            patience=patience or Patience(),
            targets=app.targets,
            outbox=Outbox(),
            names=names,
        ),
        "headers": [*names.always, *([_TLS_ALONE] if is_encrypted else [])],
        "loop": "none",
        "ws": "none",
        "lifespan": "off",
        "access_log": False,
        "log_config": None,
        "server_header": False,
        "date_header": True,
        "proxy_headers": False,
        "timeout_keep_alive": 75,
        "backlog": 4096,
    }


async def _send_json(caller: Caller, value: object, request_id: str) -> None:
    headers = [
        (b"content-type", b"application/json"),
        (b"x-content-type-options", b"nosniff"),
        (b"x-request-id", request_id.encode()),
    ]
    await caller.answer(200, headers, _encode(value))


def _model(price: Price) -> dict[str, object]:
    rates = {**price.per_token, **price.per_unit}
    chat = ["chat.completions"] if price.is_chat_priced else []
    return {
        "id": price.model,
        "object": "model",
        "created": price.effective_ms // 1000,
        "owned_by": price.source or "bursar",
        "display_name": price.model,
        "description": "",
        "context_window": price.context_window,
        "max_output_tokens": price.max_output_tokens,
        "supported_endpoints": chat or (["embeddings"] if price.is_embedding_priced else []),
        "pricing": {
            f"per_{meter.removesuffix('_tokens')}_token"
            if meter.endswith("_tokens")
            else f"per_{meter}": msgspec.Raw(format_rate(rate).encode())
            for meter, rate in rates.items()
        },
        "architecture": {"modality": "text->text" if chat else "text->embedding"},
    }
