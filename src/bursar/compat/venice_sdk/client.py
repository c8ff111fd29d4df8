"""The client, and calls of chat models."""

import json
from collections.abc import Iterator, Mapping, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final

from bursar.compat.venice_sdk import requests
from bursar.compat.venice_sdk.account import AccountManager
from bursar.compat.venice_sdk.api_keys import APIKeysAPI
from bursar.compat.venice_sdk.billing import BillingAPI
from bursar.compat.venice_sdk.errors import VeniceAPIError, raising
from bursar.compat.venice_sdk.requests import Requests

if TYPE_CHECKING:
    from typing import Self

DEFAULT_MODEL: Final = "llama-3.3-70b"


class ChatAPI:
    """Calls of chat models, for an inference key."""

    def __init__(self, client: Requests) -> None:
        self._requests = client

    def complete(
        self,
        messages: Sequence[Mapping[str, object]],
        model: str = DEFAULT_MODEL,
        *,
        stream: bool = False,
        **fields: Any,
    ) -> Any:
        """Call a model: its answer as a dict, or with `stream` an iterator over its text."""
        if stream:
            return self._texts(messages, model, fields)
        with raising(VeniceAPIError):
            answer = self._requests.bursar.chat.complete.with_raw_response(
                model=model, messages=messages, **fields
            )
        return json.loads(answer.content)

    def _texts(
        self, messages: Sequence[Mapping[str, object]], model: str, fields: Mapping[str, Any]
    ) -> Iterator[str]:
        with raising(VeniceAPIError):
            parts = self._requests.bursar.chat.complete(
                model=model, messages=messages, stream=True, **fields
            )
            for part in parts:
                if part.text:
                    yield part.text


class VeniceClient:
    """A Bursar server, in the form of Venice's client."""

    def __init__(
        self,
        api_key: str | None = None,
        base_url: str | None = None,
        *,
        timeout: float | None = 60.0,
        max_retries: int = 2,
    ) -> None:
        with raising(VeniceAPIError):
            self._requests = requests.connect(
                api_key=api_key, base_url=base_url, timeout_s=timeout, max_retries=max_retries
            )
        self.api_keys: APIKeysAPI = APIKeysAPI(self._requests)
        self.billing: BillingAPI = BillingAPI(self._requests)
        self.account: AccountManager = AccountManager(self.api_keys, self.billing)
        self.chat: ChatAPI = ChatAPI(self._requests)

    def get_account_summary(self) -> dict[str, Any]:
        """Keys, usage and rate limits: `account.get_account_summary`."""
        return self.account.get_account_summary()

    def get_rate_limit_status(self) -> dict[str, Any]:
        """How near the limits of rate are: `account.check_rate_limit_status`."""
        return self.account.check_rate_limit_status()

    def close(self) -> None:
        """Close the connections."""
        self._requests.bursar.close()

    def __enter__(self) -> "Self":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"VeniceClient({self._requests.bursar!r})"
