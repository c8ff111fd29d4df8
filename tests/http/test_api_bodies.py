"""What a request may look like before its fields mean anything: bodies, credentials, queries."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import pytest

from tests.installations import INFERENCE, JSON, PROVISIONING, Api

KEYS = "/v1/account/keys"
MAX_BYTES = 65_536


@pytest.fixture
def database_url(sqlite_database_url: str) -> str:
    # Nothing here depends on the database.
    return sqlite_database_url


NO_JSON: list[bytes] = [
    *(b"", b"{", b"}", b"null", b"1", b'"x"', b"[]", b'[{"name":"x"}]', b"{}{}", b"{} x"),
    *(b'{"name":"x",}', b"{'name':'x'}", b'{name:"x"}', b'{"name":"x"} // why', b"/**/{}"),
    *(b'\xef\xbb\xbf{"name":"x"}', '{"name":"x"}'.encode("utf-16"), b'{"name":"\xff"}'),
    *(b'{"name":"\\ud800"}', b'{"name":"a\nb"}', b'{"name":NaN}', b"[" * 60_000, b" "),
    *(b'{"a":' * 10_000, b'{"name":' + b"9" * 5_000 + b"}", b'{"name":"x"}\x00'),
]


async def test_what_is_not_one_json_object_is_400(api: Api) -> None:
    for body in NO_JSON:
        for method, path in (("POST", KEYS), ("PATCH", f"{KEYS}/3")):
            began = time.perf_counter()
            response = await api.call(method, path, content=body, headers=JSON)
            assert (response.status_code, response.json()["error"]["code"]) == (400, "invalid_json")
            assert response.json()["error"]["type"] == "invalid_request_error"
            assert time.perf_counter() - began < 1


async def test_a_name_that_stands_twice_is_400(api: Api) -> None:
    for body in (b'{"name":"a","name":"b"}', b'{"name":"a","n\\u0061me":"b"}'):
        response = await api.call("POST", KEYS, content=body, headers=JSON)
        assert (response.status_code, response.json()["error"]["code"]) == (400, "duplicate_key")


OTHER_KINDS: list[list[str]] = [
    *([], ["text/plain"], ["application/x-www-form-urlencoded"], ["multipart/form-data"]),
    *(["application/xml"], ["application/json; charset=utf-7"], ["application/jsonx"], [""]),
    *(["application/json; charset=utf-8; x=1"], ["text/json"], ["*/*"], ["application/*"]),
    ["application/json", "text/plain"],
    ["application/json, text/plain"],
]


async def test_what_is_not_declared_as_json_is_415(api: Api) -> None:
    for kinds in OTHER_KINDS:
        headers = [("content-type", kind) for kind in kinds]
        response = await api.call("POST", KEYS, content=b'{"name":"x"}', headers=headers)
        assert response.status_code == 415
        assert response.json()["error"]["code"] == "unsupported_media_type"


JSON_KINDS: list[str] = [
    *("application/json", "Application/JSON", "application/json; charset=utf-8"),
    *("application/json;charset=UTF-8", 'application/json; charset="utf-8"'),
]


async def test_json_may_be_declared_as_people_do(api: Api) -> None:
    for kind in JSON_KINDS:
        response = await api.call(
            "POST", KEYS, content=b'{"name":"x"}', headers={"content-type": kind}
        )
        assert response.status_code == 201


ENCODINGS: list[str] = ["gzip", "deflate", "br", "gzip, gzip", "unknown", ""]


async def test_what_is_compressed_is_415(api: Api) -> None:
    for encoding in ENCODINGS:
        headers = {**JSON, "content-encoding": encoding}
        response = await api.call("POST", KEYS, content=b'{"name":"x"}', headers=headers)
        assert response.status_code == 415


def _scope(method: str, path: str, headers: list[tuple[bytes, bytes]]) -> dict[str, Any]:
    return {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": method,
        "scheme": "http",
        "path": path,
        "raw_path": path.encode(),
        "query_string": b"",
        "root_path": "",
        "headers": headers,
        "client": ("192.0.2.1", 1),
        "server": ("bursar.test", 80),
    }


async def exchange(
    api: Api, headers: list[tuple[bytes, bytes]], parts: list[bytes], path: str = KEYS
) -> tuple[int, dict[bytes, bytes], int]:
    """Send a body part by part: the status, the headers, and how many parts were asked for."""
    asked = 0
    started: dict[str, Any] = {}

    async def receive() -> dict[str, Any]:
        nonlocal asked
        asked += 1
        if asked > len(parts):
            await asyncio.sleep(60)
        return {"type": "http.request", "body": parts[asked - 1], "more_body": asked < len(parts)}

    async def send(message: dict[str, Any]) -> None:
        if message["type"] == "http.response.start":
            started.update(message)

    bearer = f"Bearer {api.installation.provisioning_key}".encode()
    sent = [(b"content-type", b"application/json"), (b"authorization", bearer), *headers]
    async with asyncio.timeout(10):
        await api.app(_scope("POST", path, sent), receive, send)  # type: ignore[arg-type]
    return started["status"], dict(started["headers"]), asked


async def test_a_body_that_is_declared_too_large_is_413_before_it_is_read(api: Api) -> None:
    for length in (b"65537", b"9" * 18, b"9" * 400, b"-1", b"+5", b"0x5", b"5,5", b""):
        status, headers, asked = await exchange(api, [(b"content-length", length)], [b"x"])
        assert (status, asked) == (413, 0), length
        assert headers[b"connection"] == b"close"


async def test_a_body_that_grows_too_large_is_413_while_it_is_read(api: Api) -> None:
    parts = [b"x" * 1_000] * 1_000
    for declared in ([], [(b"content-length", b"10")]):
        status, _, asked = await exchange(api, declared, parts)
        assert (status, asked) == (413, MAX_BYTES // 1_000 + 1)


async def test_a_body_may_be_as_large_as_is_said_and_come_in_any_parts(api: Api) -> None:
    text = b'{"name":"x"}'
    full = text + b" " * (MAX_BYTES - len(text))
    status, _, _ = await exchange(api, [(b"content-length", str(MAX_BYTES).encode())], [full])
    assert status == 201
    began = time.perf_counter()
    status, _, _ = await exchange(api, [], [bytes([byte]) for byte in full])
    assert status == 201
    assert time.perf_counter() - began < 5


PATHS: list[str] = ["/v1/account/../operator/accounts", "/v1/account/keys/../../x"]


async def test_a_path_is_not_made_into_another(api: Api) -> None:
    for path in PATHS:
        status, _, _ = await exchange(api, [], [b"{}"], path=path)
        assert status == 404


# --- credentials ---------------------------------------------------------------------------------


async def code_of(
    api: Api, headers: list[tuple[str, str]], path: str = "/v1/account"
) -> tuple[int, str]:
    response = await api.call("GET", path, caller=None, headers=headers)
    return response.status_code, response.json().get("error", {}).get("code", "")


async def test_a_key_may_stand_in_either_header(api: Api) -> None:
    key = api.secret(PROVISIONING)
    bearer, plain = ("authorization", f"Bearer {key}"), ("x-api-key", key)
    for headers in ([bearer], [plain], [bearer, plain]):
        assert await code_of(api, headers) == (200, "")


async def test_two_keys_are_refused_as_ambiguous(api: Api) -> None:
    key = api.secret(PROVISIONING)
    bearer, plain = ("authorization", f"Bearer {key}"), ("x-api-key", key)
    other = ("x-api-key", api.secret(INFERENCE))
    for headers in (
        [bearer, bearer],
        [plain, plain],
        [bearer, other],
        [("authorization", "Basic eDp5"), plain],
        [bearer, ("x-api-key", "")],
        [bearer, ("authorization", "")],
    ):
        assert await code_of(api, headers) == (400, "ambiguous_credentials"), headers


async def test_whatever_is_no_key_has_one_answer(api: Api) -> None:
    key = api.secret(PROVISIONING)
    for value in (
        *(f"Basic {key}", f"bearer {key}", f"BEARER {key}", f"Bearer  {key}", f"Bearer {key} "),
        *(key, "Bearer", "Bearer ", "", f"Bearer {key},{key}", f"Bearer {key[:-1]}"),
        *(f"Bearer {'x' * 1_000_000}", f"Bearer {key}\t", f"Token {key}", f"Bearer\t{key}"),
    ):
        assert await code_of(api, [("authorization", value)]) == (401, "invalid_api_key"), value[
            :60
        ]


async def test_a_key_in_the_address_is_refused_even_beside_a_good_one(api: Api) -> None:
    key = api.secret(PROVISIONING)
    bearer = ("authorization", f"Bearer {key}")
    for name in ("api_key", "key", "access_token", "API_KEY", "x-api-key"):
        for headers in ([], [bearer]):
            answer = await code_of(api, headers, f"/v1/account?{name}={key}")
            assert answer == (401, "key_in_query")


async def test_unreadable_comes_before_who_and_who_before_what(api: Api) -> None:
    cases = [
        (None, b"{", "invalid_json"),
        (None, b'{"bogus":1}', "missing_api_key"),
        (INFERENCE, b'{"bogus":1}', "wrong_key_type"),
        (PROVISIONING, b'{"bogus":1}', "unknown_field"),
    ]
    for caller, body, code in cases:
        response = await api.call("POST", KEYS, caller=caller, content=body, headers=JSON)
        assert response.json()["error"]["code"] == code
    response = await api.call("PATCH", f"{KEYS}/99", content=b'{"bogus":1}', headers=JSON)
    assert response.json()["error"]["code"] == "not_found"


# --- queries -------------------------------------------------------------------------------------


BAD_QUERIES: list[str] = [
    *("days=0", "days=-1", "days=31", "days=1000000000", "days=abc", "days=1.5", "days="),
    *("days=1&days=30", "days=%201", "days=+1", "days=1_0", "days=%EF%BC%91", "days=1e1"),
    *("days=0x1", "days=true", "days=1;days=2", "Days=1", "day=1", "fresh=1", "fresh=TRUE"),
    *("days%5B%5D=1", "bogus=1", "=1", "days=1&", "days=9999999999999999999999"),
]


async def test_a_parameter_that_is_not_exactly_right_is_422(api: Api) -> None:
    for query in BAD_QUERIES:
        response = await api.call("GET", f"/v1/account/activity?{query}")
        expected = 200 if query == "days=1&" else 422
        assert response.status_code == expected, response.text


async def test_a_query_that_cannot_be_read_is_400(api: Api) -> None:
    for query in ("x=1&" * 50, "a=" + "x" * 9_000, "days=%ff"):
        response = await api.call("GET", f"/v1/account/activity?{query}")
        assert response.json()["error"]["code"] == "invalid_query", query[:20]
        assert response.status_code == 400


@pytest.mark.parametrize("path", ["/v1/account/transactions", "/v1/account/usage/events"])
@pytest.mark.parametrize(
    ("query", "code"),
    [
        *((f"limit={text}", "invalid_value") for text in ("0", "-1", "1001", "1e9", "abc", "")),
        *((f"cursor={text}", "invalid_cursor") for text in ("", "x", "AAAA", "%00", "a" * 500)),
        ("cursor=ZXZlbnRzIDIKMQph", "invalid_cursor"),
        ("sort=password_hash", "unknown_field"),
        ("offset=1", "unknown_field"),
        ("group_by=1;drop", "unknown_field"),
    ],
)
async def test_pages_are_asked_for_exactly(api: Api, path: str, query: str, code: str) -> None:
    response = await api.call("GET", f"{path}?{query}")
    assert (response.status_code, response.json()["error"]["code"]) == (422, code)


BAD_FILTERS: list[tuple[str, str]] = [
    *((f"key_id={text}", "invalid_value") for text in ("0", "x", "01", "9" * 19, "1,2")),
    *((f"model={text}", "invalid_characters") for text in ("%00", "a%0Ab", "%E2%80%AE")),
    ("model=", "invalid_name"),
    ("model=" + "x" * 256, "name_too_long"),
    *((f"from={text}", "invalid_timestamp") for text in ("x", "2026-01-01", "1")),
    ("from=2026-01-02T00:00:00Z&to=2026-01-01T00:00:00Z", "invalid_range"),
]


async def test_filters_are_given_exactly(api: Api) -> None:
    for query, code in BAD_FILTERS:
        response = await api.call("GET", f"/v1/account/usage/events?{query}")
        assert (response.status_code, response.json()["error"]["code"]) == (422, code)
