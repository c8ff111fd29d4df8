"""What a model server says in another way than most is paid for, and is not lost for its form."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from bursar import ConfigurationError, InvalidAnswer, ServerFailed
from bursar.sdk.resources.chat import ChatChunk, ChatCompletion
from tests.sdk.faces import Face
from tests.sdk.test_failures import (
    CHUNK,
    HELLO,
    SSE_HEAD,
    answer,
    is_a_sentence,
    listening,
    saying,
    streaming,
    texts,
)

PARTS = [{"type": "thinking", "thinking": []}, {"type": "text", "text": "h"}, {"text": "i"}, {}]


async def completed(face: Face, said: Any) -> ChatCompletion:
    """What comes of a call that is answered so."""
    body = json.dumps(said).encode()
    async with listening(saying(answer(body, head="x-bursar-cost: 0.5"))) as where:
        client = face.client("bsk_x", base_url=f"http://{where}")
        found: Any = await face.do(client.chat.complete, model="m", messages=HELLO)
    assert isinstance(found, ChatCompletion)
    return found


@pytest.mark.parametrize(
    ("said", "text"),
    [
        ({"choices": None}, ""),
        ({"choices": [{}]}, ""),
        ({"choices": [{"message": None}], "id": None, "model": None}, ""),
        ({"choices": [{"message": {"role": None, "content": "hi"}}], "id": 7}, "hi"),
        ({"choices": [{"index": None, "message": {"content": PARTS}}]}, "hi"),
        ({"choices": [{"message": {"content": 5}}], "usage": {"total_tokens": None}}, ""),
        ({"choices": [{"message": {"content": "hi"}}], "usage": "none", "cost": "x"}, "hi"),
    ],
)
async def test_a_whole_answer_is_read_as_far_as_it_can_be(face: Face, said: Any, text: str) -> None:
    found = await completed(face, said)
    assert found.text == text
    assert str(found.cost) == "0.5"
    assert found.request_id == "req_1"


async def test_what_is_no_answer_of_a_model_is_none(face: Face) -> None:
    for said in ({}, [], {"object": "list"}):
        with pytest.raises(InvalidAnswer):
            await completed(face, said)


@pytest.mark.parametrize(
    ("event", "text"),
    [
        ({"choices": [{"delta": {"content": "hi"}}]}, "hi"),
        ({"choices": [{"index": 0, "delta": None}]}, ""),
        ({"choices": None, "id": "c"}, ""),
        ({"choices": [], "usage": {"prompt_tokens": 1, "total_tokens": None}}, ""),
        ({"usage": {"prompt_tokens": 1}}, ""),
        ({"choices": [{"index": 0, "delta": {"content": PARTS}}], "model": None}, "hi"),
    ],
)
async def test_a_part_of_a_stream_is_read_as_far_as_it_can_be(
    face: Face, event: Any, text: str
) -> None:
    said = b"data: " + json.dumps(event).encode() + b"\n\ndata: [DONE]\n\n"
    async with streaming(said) as url:
        assert await texts(face, url) == [text]
    assert ChatChunk.model_validate(event).text == text


async def test_a_refusal_in_a_stream_that_is_text_keeps_its_words(face: Face) -> None:
    async with streaming(CHUNK + b'data: {"error":"The model is overloaded."}\n\n') as url:
        with pytest.raises(ServerFailed, match="The model is overloaded") as refused:
            await texts(face, url)
    assert refused.value.request_id == "req_7"


# ── The end of a stream ─────────────────────────────────────────────────────────────────────────


async def test_what_becomes_of_the_connection_after_the_end_mark_is_nobodys_business(
    face: Face,
) -> None:
    async def held_open(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(SSE_HEAD + b"\r\n" + CHUNK + b"data: [DONE]\n\n")
        await reader.read()

    async with listening(held_open) as where:
        assert await asyncio.wait_for(texts(face, f"http://{where}"), 5) == ["hi"]

    async def cut(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(SSE_HEAD + b"content-length: 9999\r\n\r\n" + CHUNK + b"data: [DONE]\n\n")
        await writer.drain()
        writer.transport.abort()

    async with listening(cut) as where:
        assert await texts(face, f"http://{where}") == ["hi"]


async def test_a_stream_is_read_once_and_says_so(face: Face) -> None:
    async with streaming(CHUNK + b"data: [DONE]\n\n") as url:
        client = face.client("bsk_x", base_url=url)
        for has_been_read in (True, False):
            stream = await face.do(client.chat.complete, model="m", messages=HELLO, stream=True)
            if has_been_read:
                assert len(await face.items(stream)) == 1
            else:
                await face.do(stream.close)
            with pytest.raises(ConfigurationError, match="read once") as refused:
                await face.items(stream)
            assert is_a_sentence(refused.value)
            assert refused.value.request_id == "req_7"
