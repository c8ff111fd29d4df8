"""Calls of chat models, whole and streamed.

A call is sent once and never again by itself: a model server may have sold what did not arrive.
Nor is what has arrived refused for its form, since it is paid for: what a model server says in
another way than most is left out, and is in the raw response.
"""

from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Any, Literal, TypeAlias, overload

from pydantic import (
    ValidationError,
    ValidationInfo,
    ValidatorFunctionWrapHandler,
    field_validator,
)

from bursar.sdk import results, values
from bursar.sdk.calls import Answer, Call, RawResponse
from bursar.sdk.faces import AsyncResource, Resource
from bursar.sdk.results import Field, Result
from bursar.sdk.streams import AsyncStream, Stream

Message: TypeAlias = Mapping[str, object]


class _PassedOn(Result):
    """What a model server says: a field that is not of its kind has its default instead."""

    @field_validator("*", mode="wrap")
    @classmethod
    def _read_or_leave(
        cls, value: object, read: ValidatorFunctionWrapHandler, about: ValidationInfo
    ) -> object:
        try:
            return read(value)
        except ValidationError:
            field = cls.model_fields[about.field_name or ""]
            return field.get_default(call_default_factory=True)


class ChatMessage(_PassedOn):
    """What was said; `content` is null where only tools are called, and may come in parts."""

    role: str = "assistant"
    content: str | tuple[dict[str, Any], ...] | None = None

    @property
    def text(self) -> str:
        """The text of it, of parts that of all of them."""
        return _text(self.content)


class ChatUsage(_PassedOn):
    """Tokens that were used."""

    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    total_tokens: int | None = None


class ChatChoice(_PassedOn):
    """One of the answers."""

    index: int = 0
    message: ChatMessage = Field(default_factory=ChatMessage)
    finish_reason: str | None = None


class ChatCompletion(_PassedOn):
    """A model's answer. `cost` is what it cost in USD, exactly, `request_id` the usage event's."""

    id: str | None = None
    model: str | None = None
    choices: tuple[ChatChoice, ...] = ()
    usage: ChatUsage | None = None
    cost: Decimal | None = None
    request_id: str | None = None

    @property
    def text(self) -> str:
        """The first answer's text."""
        return self.choices[0].message.text if self.choices else ""


class ChatDelta(_PassedOn):
    """What a part of a stream adds to an answer."""

    role: str | None = None
    content: str | tuple[dict[str, Any], ...] | None = None

    @property
    def text(self) -> str:
        """The text of it, of parts that of all of them."""
        return _text(self.content)


class ChatChunkChoice(_PassedOn):
    """A part of one of the answers."""

    index: int = 0
    delta: ChatDelta = Field(default_factory=ChatDelta)
    finish_reason: str | None = None


class ChatChunk(_PassedOn):
    """A part of a streamed answer; the last has `usage` where `include_usage` asked for it."""

    id: str | None = None
    model: str | None = None
    choices: tuple[ChatChunkChoice, ...] = ()
    usage: ChatUsage | None = None

    @property
    def text(self) -> str:
        """What it adds to the first answer's text."""
        return "".join(each.delta.text for each in self.choices if each.index == 0)


def _describe(
    *,
    model: str,
    messages: Sequence[Message],
    max_tokens: int | None = None,
    labels: Mapping[str, str] | None = None,
    **fields: object,
) -> Call[ChatCompletion]:
    return Call(
        "POST",
        "/v1/chat/completions",
        _read,
        body=values.some(model=model, messages=messages, max_tokens=max_tokens) | fields,
        headers=_labels(labels),
        is_slow=True,
    )


def _streamed(call: Call[ChatCompletion]) -> Call[Answer]:
    return Call(
        call.method,
        call.path,
        lambda answer: answer,
        body={**(call.body or {}), "stream": True},
        headers={**call.headers, "accept": "text/event-stream"},
        is_slow=True,
        is_stream=True,
    )


class Complete:
    """Calling a chat model."""

    def __init__(self, resource: Resource) -> None:
        self._run = resource.run

    @overload
    def __call__(
        self,
        *,
        model: str,
        messages: Sequence[Message],
        stream: Literal[False] = False,
        max_tokens: int | None = None,
        labels: Mapping[str, str] | None = None,
        **fields: object,
    ) -> ChatCompletion: ...
    @overload
    def __call__(
        self,
        *,
        model: str,
        messages: Sequence[Message],
        stream: Literal[True],
        max_tokens: int | None = None,
        labels: Mapping[str, str] | None = None,
        **fields: object,
    ) -> Stream[ChatChunk]: ...
    def __call__(self, *, stream: bool = False, **asked: Any) -> Any:
        """Call a model: its answer, or with `stream=True` its answer as it comes.

        `labels` go on the charge, `fields` to the model server. Raises InsufficientCredit and
        RateLimited; a stream raises StreamCut where it ends before its end.
        """
        call = _describe(**asked)
        if stream:
            return Stream((self._run(_streamed(call)))[0], _read_chunk)
        return (self._run(call))[0]

    def with_raw_response(
        self,
        *,
        model: str,
        messages: Sequence[Message],
        max_tokens: int | None = None,
        labels: Mapping[str, str] | None = None,
        **fields: object,
    ) -> RawResponse[ChatCompletion]:
        """Call a model and return status, headers and body beside its answer."""
        value, answer = self._run(
            _describe(
                model=model, messages=messages, max_tokens=max_tokens, labels=labels, **fields
            )
        )
        return RawResponse(answer.status, answer.headers, answer.content, value)


class Chat(Resource):
    """Calls of chat models."""

    @property
    def complete(self) -> Complete:
        """Call a model: its answer, or with `stream=True` its answer as it comes."""
        return Complete(self)


class AsyncComplete:
    """Calling a chat model."""

    def __init__(self, resource: AsyncResource) -> None:
        self._run = resource.run

    @overload
    async def __call__(
        self,
        *,
        model: str,
        messages: Sequence[Message],
        stream: Literal[False] = False,
        max_tokens: int | None = None,
        labels: Mapping[str, str] | None = None,
        **fields: object,
    ) -> ChatCompletion: ...
    @overload
    async def __call__(
        self,
        *,
        model: str,
        messages: Sequence[Message],
        stream: Literal[True],
        max_tokens: int | None = None,
        labels: Mapping[str, str] | None = None,
        **fields: object,
    ) -> AsyncStream[ChatChunk]: ...
    async def __call__(self, *, stream: bool = False, **asked: Any) -> Any:
        """Call a model: its answer, or with `stream=True` its answer as it comes.

        `labels` go on the charge, `fields` to the model server. Raises InsufficientCredit and
        RateLimited; a stream raises StreamCut where it ends before its end.
        """
        call = _describe(**asked)
        if stream:
            return AsyncStream((await self._run(_streamed(call)))[0], _read_chunk)
        return (await self._run(call))[0]

    async def with_raw_response(
        self,
        *,
        model: str,
        messages: Sequence[Message],
        max_tokens: int | None = None,
        labels: Mapping[str, str] | None = None,
        **fields: object,
    ) -> RawResponse[ChatCompletion]:
        """Call a model and return status, headers and body beside its answer."""
        value, answer = await self._run(
            _describe(
                model=model, messages=messages, max_tokens=max_tokens, labels=labels, **fields
            )
        )
        return RawResponse(answer.status, answer.headers, answer.content, value)


class AsyncChat(AsyncResource):
    """Calls of chat models."""

    @property
    def complete(self) -> AsyncComplete:
        """Call a model: its answer, or with `stream=True` its answer as it comes."""
        return AsyncComplete(self)


def _labels(labels: Mapping[str, str] | None) -> dict[str, str]:
    if not labels:
        return {}
    pairs = (f"{values.quoted(name)}={values.quoted(value)}" for name, value in labels.items())
    return {"x-bursar-labels": ",".join(pairs)}


def _read(answer: Answer) -> ChatCompletion:
    cost = answer.headers.get("x-bursar-cost")
    said = {**answer.document("choices"), "cost": cost, "request_id": answer.request_id}
    return results.parse(ChatCompletion, said, answer)


def _read_chunk(document: object, answer: Answer) -> ChatChunk:
    if isinstance(document, dict) and not document.keys() & {"choices", "usage"}:
        raise answer.invalid("An event of the stream is no part of an answer: ")
    return results.parse(ChatChunk, document, answer)


def _text(content: str | tuple[dict[str, Any], ...] | None) -> str:
    if isinstance(content, str):
        return content
    texts = (part.get("text") for part in content or ())
    return "".join(text for text in texts if isinstance(text, str))
