"""No body, however large and however made, keeps the other requests waiting while it is read.

Measured in processor time of the reading alone, so that a busy machine does not count.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable
from typing import Any

import pytest

from bursar.core.errors import BursarError, Unreadable
from bursar.gateway.routing import Route, Upstream
from bursar.gateway.upstreams.sandbox import Sandbox
from bursar.gateway.wire import bulk, calls, fields
from bursar.gateway.wire.calls import CHAT, EMBEDDINGS, Endpoint

MOST_BYTES = 10_000_000
# For this machine; on a slower one it is in proportion to what a plain text costs there.
MOST_S, TIMES_PLAIN = 0.05, 3.0
ROUTE = Route(Upstream("local", Sandbox(), (), ("*",), {}), "gpt-test")
CALL = '{"model":"gpt-test","messages":[{"role":"user","content":"hi"}],'
SAID = '{"model":"gpt-test","messages":[{"role":"user","content":'
EMBED = '{"model":"gpt-test","input":'


def filled(before: str, unit: str, after: str) -> Callable[[], bytes]:
    """A body of the largest size, made of as many units as it takes."""

    def make() -> bytes:
        count = (MOST_BYTES - len(before) - len(after)) // len(unit.encode())
        return (before + unit * count + after).encode()

    return make


def joined(before: str, units: Iterable[str], after: str) -> Callable[[], bytes]:
    text = before + ",".join(units) + after
    return text.encode


NUMBERED = [f'"{number:050d}":"{number:040d}"' for number in range(99_000)]
PLAIN = filled(SAID + '"', "x", '"}]}')
TEXTS = {
    "a text": PLAIN,
    "a text of escapes": filled(SAID + '"', "\\n", '"}]}'),
    "a text of escaped quotes": filled(SAID + '"', '\\"', '"}]}'),
    "a text beyond ASCII": filled(SAID + '"', "漢", '"}]}'),
    "a text of JSON": filled(SAID + '"', '{\\"a\\":[1,2,3]},', '"}]}'),
    "10 000 messages": joined(
        '{"model":"gpt-test","messages":[',
        ['{"role":"user","content":"' + "x" * 960 + '"}'] * 10_000,
        "]}",
    ),
    "an image": filled(
        SAID + '[{"type":"image_url","image_url":{"url":"data:image/png;base64,', "iVBO", '"}}]}]}'
    ),
    "a document of commas": filled(SAID + '[{"type":"text","text":"', "a, b; [c] {d}", '"}]}]}'),
}
HOSTILE = {
    "blanks": filled(CALL + '"n":1', " ", "}"),
    "arrays": filled(CALL + '"x":[', "[],", "[]]}"),
    "numbers": filled(CALL + '"x":[', "1,", "1]}"),
    "names": joined(CALL + '"x":{', NUMBERED, "}}"),
    "names at the top": joined(CALL, NUMBERED, "}"),
    "a field twice, and numbers": filled(CALL + '"y":{"model":1},"x":[', "1,", "1]}"),
    "a field twice, and names": joined(CALL + '"y":{"model":1},"x":{', NUMBERED, "}}"),
    "a field twice, and texts": filled(CALL + '"y":{"model":1},"x":[', '"",', "1]}"),
    "temperature": filled(CALL + '"temperature":[', "[],", "1]}"),
    "stop": filled(CALL + '"stop":[', '"",', '""]}'),
    "tools": filled(CALL + '"tools":[', '{"type":"function"},', '{"type":"function"}]}'),
    "tools of nothing": filled(CALL + '"tools":[', "[],", "[]]}"),
    "digits": filled(CALL + '"max_tokens":', "9", "}"),
    "messages of numbers": filled('{"model":"gpt-test","messages":[', "1,", "1]}"),
    "messages of nothing": filled('{"model":"gpt-test","messages":[', "{},", "{}]}"),
    "messages of roles": filled(
        '{"model":"gpt-test","messages":[', '{"role":"user"},', '{"role":"user"}]}'
    ),
    "parts of nothing": filled(SAID + "[", "{},", "{}]}]}"),
    "parts of texts": filled(SAID + "[", '"",', '""]}]}'),
    "parts of arrays": filled(SAID + "[", "[],", "[]]}]}"),
    "parts with arrays": filled(SAID + '[{"type":"x","y":[', "[],", "[]]}]}]}"),
    "parts with short arrays": filled(SAID + '[{"type":"x","y":[', "[1,1],", "[]]}]}]}"),
    "parts with towers": filled(
        SAID + '[{"type":"x","y":[', "[" * 200 + "]" * 200 + ",", "[]]}]}]}"
    ),
    "many parts with arrays": filled(
        SAID + "[", '{"type":"x","y":[' + "[]," * 90_000 + "[]]},", '{"type":"x"}]}]}'
    ),
    "many messages with arrays": filled(
        '{"model":"gpt-test","messages":[',
        '{"role":"user","content":[{"type":"x","y":[' + "[]," * 90_000 + "[]]}]},",
        '{"role":"user","content":[{"type":"x"}]}]}',
    ),
}
EMBEDDED = {
    "a text to embed": filled(EMBED + '"', "x", '"}'),
    "texts": filled(EMBED + "[", '"a",', '"a"]}'),
    "tokens": filled(EMBED + "[", "1,", "1]}"),
    "lists of a token": filled(EMBED + "[", "[1],", "[1]]}"),
    "lists of tokens": filled(EMBED + "[", "[" + "1," * 2_400 + "1],", "[1]]}"),
    "blanks and tokens": filled(EMBED + "[ \n ", "1 , ", "1]}"),
}


def read(endpoint: Endpoint, body: bytes) -> str:
    """All that is done with a body until it is sent; the refusal's code, if it is refused."""
    try:
        found = fields.read_fields(body)
        call = calls.read_call(endpoint, found, body)
        calls.upstream_body(call, route=ROUTE, max_output=5)
    except BursarError as error:
        return error.code
    return ""


def took_s(endpoint: Endpoint, body: bytes) -> float:
    """The processor time of reading it, the least of three."""
    times = []
    for _ in range(3):
        began = time.thread_time()
        read(endpoint, body)
        times.append(time.thread_time() - began)
    return min(times)


@pytest.fixture(scope="module")
def most_s() -> float:
    """How long reading the largest body may take on this machine."""
    return max(MOST_S, TIMES_PLAIN * took_s(CHAT, PLAIN()))


@pytest.mark.parametrize("name", TEXTS)
def test_a_large_body_of_texts_is_read_in_no_time_and_passed_on(name: str, most_s: float) -> None:
    body = TEXTS[name]()
    assert len(body) > MOST_BYTES * 0.98
    assert read(CHAT, body) == ""
    assert took_s(CHAT, body) < most_s


@pytest.mark.parametrize("name", HOSTILE)
def test_a_large_body_made_to_be_slow_is_refused_in_no_time(name: str, most_s: float) -> None:
    body = HOSTILE[name]()
    assert read(CHAT, body) in ("invalid_json", "invalid_value")
    assert took_s(CHAT, body) < most_s


@pytest.mark.parametrize("name", EMBEDDED)
def test_a_large_body_to_embed_is_read_or_refused_in_no_time(name: str, most_s: float) -> None:
    body = EMBEDDED[name]()
    assert (read(EMBEDDINGS, body) == "") is (name == "a text to embed")
    assert took_s(EMBEDDINGS, body) < most_s


def padded(**more: Any) -> bytes:
    """A request whose messages alone make it large."""
    said = [{"role": "user", "content": 'say "model" and "n": ' + "x" * bulk.LARGE}]
    return json.dumps({"model": "gpt-test", "messages": said, **more}).encode()


@pytest.mark.parametrize("name", ["model", "messages", "n", "stream"])
def test_a_field_that_decides_may_come_once_in_a_large_body_too(name: str) -> None:
    body = padded(n=1, stream=False)
    again = f'"{name}":1,'.encode()
    for twice in (body[:1] + again + body[1:], body[:-1] + b"," + again[:-1] + b"}"):
        with pytest.raises(Unreadable) as caught:
            fields.read_fields(twice)
        assert caught.value.code == "duplicate_key"
    whole = body[:-1] + b"," + body[1:]
    with pytest.raises(Unreadable) as caught:
        fields.read_fields(whole)
    assert caught.value.code == "duplicate_key"


def test_a_large_body_says_what_a_small_one_does() -> None:
    body = padded(n=2, max_tokens=7, user="model")
    call = calls.read_call(CHAT, fields.read_fields(body), body)
    assert (call.model, call.choices, call.max_output) == ("gpt-test", 2, 7)
    sent = json.loads(calls.upstream_body(call, route=ROUTE, max_output=7))
    assert sent == {**json.loads(body), "max_tokens": 7}


def test_what_is_cut_out_is_the_field_and_not_what_looks_like_it() -> None:
    """Another field holds the same beginning, many times over."""
    said = [{"role": "user", "content": "y" * bulk.LARGE}]
    beginning = json.dumps(said)[:2_000]
    body = json.dumps({"a": beginning, "b": beginning, "model": "m", "messages": said}).encode()
    beside, parts = bulk.split(body)
    assert json.loads(beside) == {**json.loads(body), "messages": None}
    assert json.loads(bytes(parts["messages"])) == said
    # Where it is not found soon it stays where it is, and is read there.
    few = [{"role": "user", "content": "z" * 2_000}]
    # Long enough to begin alike, and not the same in the end.
    decoys = [[few[0], number] for number in range(20)]
    whole = {"x": decoys, "model": "m", "messages": few, "y": "w" * bulk.LARGE}
    body = json.dumps(whole).encode()
    assert bulk.split(body) == (body, {})
    assert fields.read_fields(body).keys() == whole.keys()
