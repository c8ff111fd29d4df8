"""Bad input to the model endpoints is refused in the fixed order, and moves nothing."""

from __future__ import annotations

import gzip
import json
import os
import shutil
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx2
import pytest
import pytest_asyncio

from bursar.core import secrets
from bursar.core.secrets import KeyKind
from bursar.service import keys
from bursar.store.database import sqlite_url
from tests import books, wire
from tests.serving import MODEL, House, serving

pytestmark = pytest.mark.asyncio(loop_scope="module")

CHAT, EMBEDDINGS = "/v1/chat/completions", "/v1/embeddings"
JSON = ("content-type", "application/json")
HELLO = [{"role": "user", "content": "hello there"}]
CREDIT = "10"
UNPRICED = "gpt-unpriced"


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def house(
    migrated_sqlite: Path, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[House]:
    directory = tmp_path_factory.mktemp("bad-input")
    path = directory / "bursar.db"
    shutil.copyfile(migrated_sqlite, path)
    async with serving(sqlite_url(path), directory, credit=CREDIT) as served:
        yield served


@pytest_asyncio.fixture(loop_scope="module", autouse=True)
async def nothing_moves(house: House) -> AsyncIterator[None]:
    before = await books.read(house)
    yield
    assert await books.read(house) == before
    assert before.holds_open == 0


def chat(**fields: Any) -> bytes:
    return json.dumps({"model": MODEL, "messages": HELLO, **fields}).encode()


def said(content: Any, role: str = "user") -> bytes:
    return chat(messages=[{"role": role, "content": content}])


def part(kind: str, **fields: Any) -> bytes:
    return said([{"type": kind, **fields}])


def image(url: str) -> bytes:
    return part("image_url", image_url={"url": url})


def raw(fields: str) -> bytes:
    """A chat request with these fields spelt as they are."""
    return chat()[:-1] + b"," + fields.encode() + b"}"


def embed(value: Any) -> bytes:
    return json.dumps({"model": MODEL, "input": value}).encode()


async def post(
    house: House, body: bytes, *headers: tuple[str, str], path: str = CHAT, key: str | None = None
) -> httpx2.Response:
    """One call; the content type is JSON unless a header says otherwise."""
    secret = house.installation.inference_key if key is None else key
    sent = [*headers]
    if not any(name == "content-type" for name, _ in headers):
        sent.append(JSON)
    if secret:
        sent.append(("authorization", f"Bearer {secret}"))
    return await house.http.post(path, content=body, headers=sent)


def error_of(answer: httpx2.Response, status: int) -> dict[str, Any]:
    """The error of an answer in OpenAI's shape and ours."""
    assert answer.status_code == status, answer.text[:500]
    assert answer.headers["content-type"] == "application/json"
    error: dict[str, Any] = answer.json()["error"]
    assert set(error) >= {"type", "code", "message", "param", "request_id"}
    assert error["request_id"] == answer.headers["x-request-id"]
    return error


def rows(table: dict[str, Any]) -> Any:
    """Parameters of a test, one for each row, by its name."""
    return [pytest.param(value, id=name) for name, value in table.items()]


# What cannot be read

UNREADABLE = {
    "D-61 empty": b"",
    "D-61 open brace": b"{",
    "D-61 trailing comma": b'{"model":"gpt-test",}',
    "D-61 comment": b'{/* hello */"model":"gpt-test"}',
    "D-61 byte order mark": b"\xef\xbb\xbf" + chat(),
    "D-61 UTF-16": chat().decode().encode("utf-16"),
    "D-61 invalid UTF-8": chat().replace(b"hello", b"h\xff\xfello"),
    "D-61 overlong UTF-8": chat().replace(b"hello", b"h\xc0\xafllo"),
    "D-61 two documents": chat() + chat(),
    "D-61 text behind": chat() + b" x",
    "D-61 array": b"[" + chat() + b"]",
    "D-61 scalar": b"1",
    "D-61 null": b"null",
    "D-61 single quotes": b"{'model':'gpt-test'}",
    "D-61 lone surrogate": chat().replace(b"hello", b"\\ud800"),
    "D-61 raw line break": chat().replace(b"hello", b"he\nllo"),
    "D-62 100 000 open brackets": b"[" * 100_000,
    "D-62 100 000 brackets inside": raw('"x":' + "[" * 100_000 + "]" * 100_000),
    "D-62 100 000 objects inside": raw('"x":' + '{"a":' * 100_000 + "1" + "}" * 100_000),
    "D-62 a million names": b"{" + b",".join(b'"%x":1' % n for n in range(800_000)) + b"}",
    "D-64 many names that look alike": b"{" + b'"a":1,' * 800_000 + b'"a":1}',
    "D-146 NaN": raw('"temperature":NaN'),
    "D-146 Infinity": raw('"temperature":Infinity'),
    "D-146 1e400": raw('"temperature":1e400'),
    "D-146 a million biases": raw(
        '"logit_bias":{' + ",".join(f'"{n}":1' for n in range(700_000)) + "}"
    ),
    "D-146 tools 1 000 deep": raw('"tools":' + "[" * 1_000 + "]" * 1_000),
    "D-139 max_tokens 1e400": raw('"max_tokens":1e400'),
}


@pytest.mark.parametrize("body", rows(UNREADABLE))
async def test_what_is_not_one_json_object_is_refused(house: House, body: bytes) -> None:
    error = error_of(await post(house, body), 400)
    assert (error["code"], error["type"]) == ("invalid_json", "invalid_request_error")


@pytest.mark.parametrize(
    "fields",
    rows(
        {
            "D-63 model": '"model":"gpt-other"',
            "D-63 messages": '"messages":[]',
            "D-63 max_tokens": '"max_tokens":1,"max_tokens":9',
            "D-63 stream": '"stream":false,"stream":true',
            "D-63 n": '"n":1,"n":9',
        }
    ),
)
async def test_a_field_that_decides_may_come_once(house: House, fields: str) -> None:
    assert error_of(await post(house, raw(fields)), 400)["code"] == "duplicate_key"


@pytest.mark.parametrize(
    "headers",
    rows(
        {
            "D-65 text": [("content-type", "text/plain")],
            "D-65 form": [("content-type", "application/x-www-form-urlencoded")],
            "D-65 multipart": [("content-type", "multipart/form-data; boundary=x")],
            "D-65 XML": [("content-type", "application/xml")],
            "D-65 empty": [("content-type", "")],
            "D-65 UTF-7": [("content-type", "application/json; charset=utf-7")],
            "D-65 UTF-16": [("content-type", "application/json; charset=utf-16")],
            "D-65 two": [JSON, ("content-type", "text/plain")],
            "D-65 JSON twice": [JSON, JSON],
            "D-65 problem+json": [("content-type", "application/problem+json")],
        }
    ),
)
async def test_only_plain_json_is_taken(house: House, headers: list[tuple[str, str]]) -> None:
    error = error_of(await post(house, chat(), *headers), 415)
    assert error["code"] == "unsupported_media_type"


async def test_a_body_without_a_content_type_is_refused(house: House) -> None:
    headers = {"authorization": f"Bearer {house.installation.inference_key}"}
    answer = await house.http.post(CHAT, content=chat(), headers=headers)
    assert error_of(answer, 415)["code"] == "unsupported_media_type"


@pytest.mark.parametrize("encoding", ["gzip", "deflate", "br", "zstd", "gzip, gzip", "nonsense"])
async def test_d_67_an_encoded_body_is_refused_unopened(house: House, encoding: str) -> None:
    bomb = gzip.compress(chat(x="\0" * 1_000_000))
    error = error_of(await post(house, bomb, ("content-encoding", encoding)), 415)
    assert error["code"] == "unsupported_encoding"


@pytest.mark.parametrize(
    "values",
    rows(
        {
            "D-153 empty": [b""],
            "D-153 256 long": [b"a" * 256],
            "D-153 not ASCII": ["schlüssel".encode()],
            "D-153 tab": [b"a\tb"],
            "D-153 twice": [b"a", b"b"],
        }
    ),
)
async def test_an_idempotency_key_has_a_form(house: House, values: list[bytes]) -> None:
    headers = [(b"idempotency-key", value) for value in values]
    headers += [(b"content-type", b"application/json")]
    secret = house.installation.inference_key.encode()
    headers += [(b"authorization", b"Bearer " + secret)]
    answer = await house.http.post(CHAT, content=chat(n=0), headers=headers)
    assert error_of(answer, 400)["code"] == "invalid_idempotency_key"


# Who is calling

WRONG_SECRETS = {
    "D-76 Basic": [("authorization", "Basic YTpi")],
    "D-76 scheme alone": [("authorization", "Bearer")],
    "D-76 no scheme": [("authorization", "bsk_0000")],
    "D-76 another scheme": [("authorization", "Token abc")],
    "D-76 not ASCII": [("authorization", "Bearer schlüssel")],
    "D-76 60 kB": [("authorization", "Bearer " + "a" * 60_000)],
    "D-78 a word": [("authorization", "Bearer hello")],
    "D-78 an OpenAI key": [("x-api-key", "sk-proj-abcdefghijklmnopqrstuvwxyz")],
}


@pytest.mark.parametrize("headers", rows(WRONG_SECRETS))
async def test_a_credential_that_is_none_is_401(
    house: House, headers: list[tuple[str, str]]
) -> None:
    sent = [(name.encode(), value.encode()) for name, value in [*headers, JSON]]
    answer = await house.http.post(CHAT, content=chat(), headers=sent)
    error = error_of(answer, 401)
    assert error["code"] in {"invalid_api_key", "missing_api_key"}
    assert error["type"] == "authentication_error"
    assert answer.headers["www-authenticate"] == "Bearer"


@pytest.mark.parametrize(
    "headers",
    rows(
        {
            "D-76 two": [("authorization", "Bearer a"), ("authorization", "Bearer b")],
            "D-76 twice the same": [("authorization", "Bearer a"), ("authorization", "Bearer a")],
            "D-76 both, differing": [("authorization", "Bearer a"), ("x-api-key", "b")],
            "D-76 two api keys": [("x-api-key", "a"), ("x-api-key", "b")],
        }
    ),
)
async def test_two_credentials_are_one_too_many(
    house: House, headers: list[tuple[str, str]]
) -> None:
    answer = await house.http.post(CHAT, content=chat(), headers=[*headers, JSON])
    assert error_of(answer, 400)["code"] == "ambiguous_credentials"


@pytest.mark.parametrize("name", ["api_key", "key", "access_token", "Authorization"])
async def test_d_77_a_secret_in_the_query_does_not_count(house: House, name: str) -> None:
    path = f"{CHAT}?{name}={house.installation.inference_key}"
    error = error_of(await post(house, chat(), path=path, key=""), 401)
    assert error["code"] == "missing_api_key"
    assert house.installation.inference_key not in json.dumps(error)


async def test_d_78_no_answer_tells_why_a_key_is_invalid(house: House) -> None:
    good = house.installation.inference_key
    unknown = secrets.mint(KeyKind.INFERENCE, random_bytes=os.urandom(32))
    disabled_id, disabled = await house.make_key()
    deleted_id, deleted = await house.make_key()
    await house.control("PATCH", f"/v1/account/keys/{disabled_id}", json={"is_enabled": False})
    await house.control("DELETE", f"/v1/account/keys/{deleted_id}")
    tried = {
        "bad checksum": good[:-1] + ("a" if good[-1] != "a" else "b"),
        "unknown": unknown,
        "cut": good[:-1],
        "longer": good + "a",
        "another prefix": "sk-" + good[4:],
        "upper case": good.upper(),
        "disabled": disabled,
        "deleted": deleted,
        "expired": await expired_key(house),
    }
    bodies = {}
    for name, secret in tried.items():
        error = error_of(await post(house, chat(), key=secret), 401)
        del error["request_id"]
        bodies[name] = json.dumps(error)
    assert len(set(bodies.values())) == 1, bodies
    assert "invalid_api_key" in bodies["unknown"]


async def expired_key(house: House) -> str:
    """A key that has just expired."""
    database = house.server.database
    async with database.write() as tx:
        made = await keys.create(
            tx,
            account_id=house.account_id,
            user_id=None,
            name="short",
            random_bytes=os.urandom,
            expires_ms=tx.now_ms + 1,
        )
    while database.clock_ms() <= (made.key.expires_ms or 0):
        pass
    return made.secret


async def test_a_long_body_is_read_only_for_somebody_who_may_call(house: House) -> None:
    unknown = secrets.mint(KeyKind.INFERENCE, random_bytes=os.urandom(32))
    for secret in (unknown, "nonsense", house.installation.provisioning_key):
        head = (
            "POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n"
            f"authorization: Bearer {secret}\r\ncontent-length: 9000000\r\n\r\n"
        )
        talk = await wire.talk(house.url, head.encode() + b" " * 1_200_000)
        assert (talk.statuses, talk.is_closed) == ([401], True)


async def test_d_78_a_key_of_another_kind_is_401(house: House) -> None:
    for secret in (house.installation.provisioning_key, house.installation.operator_key):
        assert error_of(await post(house, chat(), key=secret), 401)["code"] == "wrong_key_type"


# Where to

WRONG_PATHS = [
    "/V1/chat/completions",
    "/v1//chat/completions",
    "/v1/chat/completions/",
    "/v1/chat/completions;x",
    "/v1/chat%2fcompletions",
    "/v1/%63hat/completions",
    "/v1/chat/completionsx",
    "/v1/files",
    "/v1/files/file-abc",
    "/v1/fine_tuning/jobs",
    "/v1/responses/resp_abc",
    "/v1/threads",
    "/v1/vector_stores",
    "/v1/batches",
    "/v1/chat/completions/chatcmpl-1",
    "/v1/engines/gpt-test/completions",
    "/openai/deployments/x/chat/completions",
]


@pytest.mark.parametrize("method", ["GET", "POST", "DELETE"])
@pytest.mark.parametrize("path", WRONG_PATHS)
async def test_d_151_only_listed_paths_are_served(house: House, path: str, method: str) -> None:
    headers = {"authorization": f"Bearer {house.installation.inference_key}"}
    request = house.http.build_request(method, "/", content=chat(), headers=headers)
    request.url = house.http.base_url.copy_with(raw_path=path.encode())
    error = error_of(await house.http.send(request), 404)
    assert (error["code"], error["type"]) == ("not_found", "not_found_error")


@pytest.mark.parametrize("method", ["GET", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "PURGE"])
@pytest.mark.parametrize("path", [CHAT, EMBEDDINGS])
async def test_d_80_another_method_is_405(house: House, path: str, method: str) -> None:
    headers = {"authorization": f"Bearer {house.installation.inference_key}"}
    answer = await house.http.request(method, path, headers=headers)
    assert error_of(answer, 405)["code"] == "method_not_allowed"
    assert answer.headers["allow"] == "POST"


@pytest.mark.parametrize("name", ["x-http-method-override", "x-method-override", "x-http-method"])
async def test_d_79_a_method_is_not_overridden(house: House, name: str) -> None:
    secret = house.installation.inference_key
    headers = {"authorization": f"Bearer {secret}", name: "POST"}
    assert (await house.http.get(CHAT, headers=headers)).status_code == 405
    assert (await house.http.get(f"{CHAT}?_method=POST", headers=headers)).status_code == 405
    answer = await post(house, chat(n=0, _method="GET"), (name, "GET"))
    assert error_of(answer, 400)["param"] == "n"


# Fields

INVALID = {
    "D-139 max_tokens -1": ("max_tokens", chat(max_tokens=-1)),
    "D-139 max_tokens 0": ("max_tokens", chat(max_tokens=0)),
    "D-139 max_tokens 1e18": ("max_tokens", raw('"max_tokens":1e18')),
    "D-139 max_tokens 10**18": ("max_tokens", chat(max_tokens=10**18)),
    "D-139 max_tokens 2**64": ("max_tokens", chat(max_tokens=2**64)),
    "D-139 max_tokens text": ("max_tokens", chat(max_tokens="5")),
    "D-139 max_tokens 1.5": ("max_tokens", chat(max_tokens=1.5)),
    "D-139 max_tokens 5.0": ("max_tokens", raw('"max_tokens":5.0')),
    "D-139 max_tokens true": ("max_tokens", chat(max_tokens=True)),
    "D-139 max_tokens list": ("max_tokens", chat(max_tokens=[5])),
    "D-139 both limits": ("max_tokens", chat(max_tokens=5, max_completion_tokens=5)),
    "D-139 max_completion_tokens 0": ("max_completion_tokens", chat(max_completion_tokens=0)),
    "D-140 n 0": ("n", chat(n=0)),
    "D-140 n -1": ("n", chat(n=-1)),
    "D-140 n 1000": ("n", chat(n=1_000)),
    "D-140 n 2**31": ("n", chat(n=2**31)),
    "D-140 n text": ("n", chat(n="2")),
    "D-140 best_of 1000": ("best_of", chat(best_of=1_000)),
    "D-141 model list": ("model", chat(model=[MODEL])),
    "D-141 model null": ("model", chat(model=None)),
    "D-141 model number": ("model", chat(model=4)),
    "D-142 messages []": ("messages", chat(messages=[])),
    "D-142 messages null": ("messages", chat(messages=None)),
    "D-142 messages text": ("messages", chat(messages="hello")),
    "D-142 messages object": ("messages", chat(messages=HELLO[0])),
    "D-142 10 001 messages": ("messages", chat(messages=HELLO * 10_001)),
    "D-142 message text": ("messages", chat(messages=["hello"])),
    "D-142 role root": ("messages", said("hi", role="root")),
    "D-142 role missing": ("messages", chat(messages=[{"content": "hi"}])),
    "D-142 content number": ("messages", said(5)),
    "D-142 content object": ("messages", said({"text": "hi"})),
    "D-142 part number": ("messages", said([5])),
    "D-142 file address": ("messages", image("file:///etc/passwd")),
    "D-142 loopback": ("messages", image("http://127.0.0.1/x.png")),
    "D-142 loopback, short": ("messages", image("http://127.1/x.png")),
    "D-142 loopback, one number": ("messages", image("http://2130706433/x.png")),
    "D-142 loopback, hexadecimal": ("messages", image("http://0x7f.1/x.png")),
    "D-142 loopback, IPv6": ("messages", image("http://[::1]/x.png")),
    "D-142 loopback, mapped": ("messages", image("http://[::ffff:127.0.0.1]/x.png")),
    "D-142 metadata service": ("messages", image("http://169.254.169.254/latest/meta-data")),
    "D-142 private": ("messages", image("https://10.0.0.8/x.png")),
    "D-142 localhost": ("messages", image("http://localhost./x.png")),
    "D-142 internal": ("messages", image("http://metadata.google.internal/x")),
    "D-142 bare name": ("messages", image("http://redis:6379/")),
    "D-142 credentials": ("messages", image("http://a@example.com/x.png")),
    "D-142 gopher": ("messages", image("gopher://example.com/x")),
    "D-142 no address": ("messages", image("/etc/passwd")),
    "D-142 address by itself": ("messages", part("image_url", image_url="file:///x")),
    "D-142 part without a type": ("messages", said([{"image_url": {"url": "file:///x"}}])),
    "D-142 video": ("messages", part("video_url", video_url={"url": "http://192.168.1.1/v"})),
    "D-143 stream text": ("stream", chat(stream="true")),
    "D-143 stream 1": ("stream", chat(stream=1)),
    "D-143 options alone": ("stream_options", chat(stream_options={"include_usage": True})),
    "D-143 options list": ("stream_options", chat(stream=True, stream_options=[])),
    "D-143 include_usage 1": (
        "stream_options",
        chat(stream=True, stream_options={"include_usage": 1}),
    ),
    "D-146 temperature text": ("temperature", chat(temperature="hot")),
    "D-146 top_p list": ("top_p", chat(top_p=[1])),
    "D-146 stop 100 000": ("stop", chat(stop=["a"] * 100_000)),
    "D-146 stop number": ("stop", chat(stop=5)),
    "D-146 20 000 biases": ("logit_bias", chat(logit_bias={str(n): 1 for n in range(20_000)})),
    "D-147 user 1 MB": ("user", chat(user="a" * 1_000_000)),
    "D-147 user control": ("user", chat(user="a\x00b")),
    "D-147 user number": ("user", chat(user=5)),
    "D-147 metadata 1 MB": ("metadata", chat(metadata={"a": "b" * 1_000_000})),
    "D-147 metadata control": ("metadata", chat(metadata={"a": "b\r\nc"})),
    "D-147 metadata many": ("metadata", chat(metadata={str(n): "a" for n in range(100)})),
    "D-147 metadata nested": ("metadata", chat(metadata={"a": {"key": "x"}})),
    "D-147 metadata text": ("metadata", chat(metadata="a")),
}


@pytest.mark.parametrize("row", rows(INVALID))
async def test_a_field_that_breaks_a_rule_is_400(house: House, row: tuple[str, bytes]) -> None:
    param, body = row
    error = error_of(await post(house, body), 400)
    assert (error["code"], error["param"]) == ("invalid_value", param)


UNPRICED_FEATURES = {
    "D-148 service_tier": ("service_tier", chat(service_tier="priority")),
    "D-148 service_tier flex": ("service_tier", chat(service_tier="flex")),
    "D-148 prediction": ("prediction", chat(prediction={"type": "content", "content": "x"})),
    "D-148 web search": ("web_search_options", chat(web_search_options={})),
    "D-148 search_parameters": ("search_parameters", chat(search_parameters={"mode": "on"})),
    "D-148 enable_search": ("enable_search", chat(enable_search=True)),
    "D-148 a built-in tool": ("tools", chat(tools=[{"type": "web_search"}])),
    "D-148 a tool without a type": ("tools", chat(tools=[{}])),
    "D-148 tools text": ("tools", chat(tools="all")),
    "D-148 spoken answers": ("audio", chat(modalities=["text", "audio"], audio={"voice": "x"})),
}


@pytest.mark.parametrize("row", rows(UNPRICED_FEATURES))
async def test_what_costs_extra_and_has_no_price_is_refused(
    house: House, row: tuple[str, bytes]
) -> None:
    param, body = row
    error = error_of(await post(house, body), 400)
    assert (error["code"], error["param"]) == ("unpriced_feature", param)


@pytest.mark.parametrize(
    "value",
    rows(
        {
            "D-150 []": [],
            "D-150 empty text": "",
            "D-150 null": None,
            "D-150 number": 5,
            "D-150 object": {"a": 1},
            "D-150 an empty one": ["a", ""],
            "D-150 mixed": ["a", 1],
            "D-150 100 000 texts": ["a"] * 100_000,
            "D-150 negative tokens": [-1, 2],
            "D-150 tokens of 2**31": [2**31],
            "D-150 tokens true": [True],
            "D-150 an empty list": [[1], []],
            "D-150 nested": [[[1]]],
        }
    ),
)
async def test_what_cannot_be_embedded_is_400(house: House, value: Any) -> None:
    error = error_of(await post(house, embed(value), path=EMBEDDINGS), 400)
    assert (error["code"], error["param"]) == ("invalid_value", "input")


@pytest.mark.parametrize(
    "model",
    rows(
        {
            "D-141 empty": "",
            "D-141 unknown": "mistral",
            "D-141 line break": f"{MODEL}\n",
            "D-141 path": "../x",
            "D-141 10 kB": "gpt-" + "a" * 10_000,
            "D-141 another case": MODEL.upper(),
            "D-141 trailing space": f"{MODEL} ",
            "D-141 zero width": f"{MODEL}\u200b",
            "D-141 wild": "*",
            "D-141 NUL": f"{MODEL}\0",
        }
    ),
)
async def test_a_model_that_nobody_serves_is_404(house: House, model: str) -> None:
    for path, body in ((CHAT, chat(model=model)), (EMBEDDINGS, embed("a"))):
        sent = json.dumps({**json.loads(body), "model": model}).encode()
        error = error_of(await post(house, sent, path=path), 404)
        assert (error["code"], error["param"]) == ("model_not_found", "model")


@pytest.mark.parametrize("model", [UNPRICED, "gpt-../../admin", f"{MODEL}:free"])
async def test_a_model_without_a_price_is_403(house: House, model: str) -> None:
    error = error_of(await post(house, chat(model=model)), 403)
    assert (error["code"], error["param"]) == ("model_not_priced", "model")


# The order of refusals: of two that apply, the earlier one is the answer

ORDER = {
    "encoding before key": (415, b"{", "none", ("content-encoding", "gzip")),
    "media type before key": (415, b"{", "none", ("content-type", "text/plain")),
    "idempotency key before key": (400, chat(), "none", ("idempotency-key", "a" * 300)),
    "JSON before key": (400, b"{", "none", None),
    "key before model": (401, chat(model="mistral"), "unknown", None),
    "key before field": (401, chat(n=0), "unknown", None),
    "key before money": (401, chat(max_tokens=10**9), "unknown", None),
    "model before field": (404, chat(model="mistral", n=0), "good", None),
    "model before messages": (404, chat(model="mistral", messages=[]), "good", None),
    "price before field": (403, chat(model=UNPRICED, max_tokens=0), "good", None),
    "model before money": (404, chat(model="mistral"), "poor", None),
    "price before money": (403, chat(model=UNPRICED), "poor", None),
    "field before money": (400, chat(n=0), "poor", None),
    "feature before money": (400, chat(service_tier="flex"), "poor", None),
    "money": (402, chat(), "poor", None),
}


@pytest.mark.parametrize("row", rows(ORDER))
async def test_the_order_of_refusals_is_fixed(
    house: House, row: tuple[int, bytes, str, tuple[str, str] | None]
) -> None:
    status, body, whose, header = row
    secrets_of = {
        "none": "",
        "unknown": secrets.mint(KeyKind.INFERENCE, random_bytes=os.urandom(32)),
        "good": house.installation.inference_key,
        "poor": (await house.make_key(limit_usd="0"))[1],
    }
    headers = () if header is None else (header,)
    error_of(await post(house, body, *headers, key=secrets_of[whose]), status)


@pytest.mark.parametrize("limit", ["0", "0.000000001", "0.0001"])
async def test_d_152_money_that_is_short_is_402_and_says_by_how_much(
    house: House, limit: str
) -> None:
    key_id, secret = await house.make_key(limit_usd=limit)
    error = error_of(await post(house, chat(max_tokens=1_000), key=secret), 402)
    assert (error["code"], error["type"]) == ("insufficient_quota", "insufficient_quota")
    assert error["allowance"] == f"key:{key_id}/cost/lifetime"
    assert float(error["left"]) == float(error["limit"]) == float(limit)
    assert error["resets_at"] is None


async def test_more_than_the_wallet_holds_is_402(house: House) -> None:
    long = [{"role": "user", "content": "a" * 9_900_000}]
    answer = await post(house, chat(messages=long, n=128, max_tokens=1_000))
    error = error_of(answer, 402)
    assert error["allowance"] == "wallet/cost/lifetime"
