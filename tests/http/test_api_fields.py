"""What the fields of a key may be. Nothing here depends on the database: one is enough."""

from __future__ import annotations

import pytest

from tests.installations import JSON, Api


@pytest.fixture
def database_url(sqlite_database_url: str) -> str:
    return sqlite_database_url


EXACT: list[tuple[bytes, bytes]] = [
    (b"500", b"500.00"),
    (b"500.0", b"500.00"),
    (b"0", b"0.00"),
    (b"-0.0", b"0.00"),
    (b"0.000000001", b"0.000000001"),
    (b"1e2", b"100.00"),
    (b"0.1", b"0.10"),
    (b"9223372036", b"9223372036.00"),
    (b"null", b"null"),
    (b"0.10000000000000000000", b"0.10"),
]


async def test_limits_are_exact(api: Api) -> None:
    for written, shown in EXACT:
        body = b'{"name":"Key","credit_limit":%s}' % written
        response = await api.call("POST", "/v1/account/keys", content=body, headers=JSON)
        assert response.status_code == 201, response.text
        assert b'"credit_limit":%s,' % shown in response.content
        listed = await api.call("GET", f"/v1/account/keys/{response.json()['id']}")
        assert b'"credit_limit":%s,' % shown in listed.content


NO_AMOUNTS: list[tuple[bytes, int, str]] = [
    *((text, 422, "invalid_amount") for text in (b"-1", b"-0.000001", b"1e19", b'"10"')),
    *((text, 422, "invalid_amount") for text in (b"true", b"false", b"[]", b"{}", b'"1_000"')),
    *((text, 422, "invalid_amount") for text in (b'""', b'" 12"', b'"\\uff11"', b'"NaN"')),
    *((text, 422, "invalid_amount") for text in (b"9223372036854775808", b"1e400", b"9223372037")),
    (b"9" * 400, 422, "invalid_amount"),
    (b"9" * 5000, 400, "invalid_json"),
    *((text, 422, "too_precise") for text in (b"0.0000000001", b"1.0000000000000000001")),
    (b"1e-400", 422, "too_precise"),
    *((text, 400, "invalid_json") for text in (b"NaN", b"Infinity", b"-Infinity", b"+1", b"01")),
]


async def test_what_is_no_amount_is_refused(api: Api) -> None:
    for written, status, code in NO_AMOUNTS:
        body = b'{"name":"Key","credit_limit":%s}' % written
        for method, path in (("POST", "/v1/account/keys"), ("PATCH", "/v1/account/keys/3")):
            response = await api.call(method, path, content=body, headers=JSON)
            assert (response.status_code, response.json()["error"]["code"]) == (status, code)
            if status == 422:
                assert response.json()["error"]["param"] == "credit_limit"
        assert (await api.get("/v1/account/keys/3"))["credit_limit"] is None


BROKEN_RULES: list[tuple[dict[str, object], str, str]] = [
    ({}, "missing_field", "name"),
    ({"name": None}, "invalid_value", "name"),
    ({"name": 5}, "invalid_value", "name"),
    ({"name": ["x"]}, "invalid_value", "name"),
    ({"name": {"$ne": None}}, "invalid_value", "name"),
    ({"name": ""}, "invalid_name", "name"),
    ({"name": "  \u200b"}, "invalid_name", "name"),
    ({"name": "x" * 256}, "name_too_long", "name"),
    *(
        ({"name": f"a{bad}b"}, "invalid_characters", "name")
        for bad in ("\x00", "\x1f", "\x9f", "\u202e", "\u2066", "\ue000", "\r\n", "\u0378")
    ),
    ({"name": "x", "expires_at": "2026-11-21T12:34:56Z"}, "invalid_expiry", "expires_at"),
    ({"name": "x", "expires_at": "3000-01-01T00:00:00Z"}, "invalid_expiry", "expires_at"),
    ({"name": "x", "expires_at": "9999-12-31T23:59:59Z"}, "invalid_expiry", "expires_at"),
    *(
        ({"name": "x", "expires_at": text}, "invalid_timestamp", "expires_at")
        for text in (
            *("", "tomorrow", "2027-01-01", "2027-01-01T00:00:00", "2027-02-30T00:00:00Z"),
            *("2027-01-01T00:00:60Z", "0000-01-01T00:00:00Z", "2027-01-01T00:00:00+99:99"),
            *("2027-01-01 00:00:00Z", "20270101T000000Z", "2027-W01-1T00:00:00Z", 1, True),
            *("2027-01-01T00:00:00 01:00", "1969-12-31T23:59:59Z", "\uff12027-01-01T00:00:00Z"),
        )
    ),
    *(
        ({"name": "x", unknown: 1}, "unknown_field", unknown)
        for unknown in (
            *("id", "account_id", "created_at", "secret_hash", "kind", "balance", "scopes"),
            *("is_enabled", "Name", "__proto__", "constructor", "__class__", "role", ""),
        )
    ),
    ({"name": "x", "é" * 500: 1}, "unknown_field", "é" * 64),
]


async def test_a_field_that_breaks_a_rule_is_named(api: Api) -> None:
    for fields, code, param in BROKEN_RULES:
        response = await api.call("POST", "/v1/account/keys", json=fields)
        error = response.json()["error"]
        assert (response.status_code, error["code"], error["param"]) == (422, code, param)
        assert error["type"] == "invalid_request_error"
        assert len((await api.get("/v1/account/keys"))["keys"]) == 1


NAMES: list[str] = [
    *(
        "<script>alert(1)</script>",
        "{{7*7}}",
        "=cmd()",
        "${jndi:ldap://x}",
        "'; DROP TABLE keys",
    ),
    *("👩‍👩‍👧‍👦", "naïve", "日本語", "%_\\", "x" * 255, "e" + "\u0301" * 254),
]


async def test_a_name_may_be_what_people_write(api: Api) -> None:
    for name in NAMES:
        made = await api.post("/v1/account/keys", {"name": name})
        assert (await api.get(f"/v1/account/keys/{made['id']}"))["name"] == name
