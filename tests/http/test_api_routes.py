"""Every route is in the registry, behind its own kind of key, and blind to other accounts."""

from __future__ import annotations

import re

from fastapi.routing import APIRoute

from bursar.api.registry import Route
from bursar.api.routes import ROUTES
from bursar.service.access import (
    InferencePrincipal,
    OperatorPrincipal,
    ProvisioningPrincipal,
)
from tests.installations import INFERENCE, OPERATOR, PROVISIONING, Api

CALLERS = {
    PROVISIONING: ProvisioningPrincipal,
    INFERENCE: InferencePrincipal,
    OPERATOR: OperatorPrincipal,
}
GUARDED = [route for route in ROUTES if route.principal is not None]
# The document describes what is public anyway.
OUTSIDE_THE_REGISTRY = {("GET", "/openapi.json"), ("HEAD", "/openapi.json")}


def address(route: Route, number: str = "3") -> str:
    return re.sub(r"\{\w+\}", number, route.path)


def test_the_application_has_the_registrys_routes_and_no_other(api: Api) -> None:
    found = {
        (method, route.path)
        for route in api.app.routes
        for method in route.methods  # type: ignore[attr-defined]
    }
    assert found - OUTSIDE_THE_REGISTRY == {(route.method, route.path) for route in ROUTES}
    assert len(ROUTES) == len({(route.method, route.path) for route in ROUTES})


SIGN_IN = {
    "/v1/auth/login",
    "/v1/auth/refresh",
    "/v1/auth/revoke",
    "/v1/auth/password-reset",
    "/v1/auth/password-reset/confirm",
    "/v1/auth/invitations/accept",
    "/v1/auth/passkeys/challenge",
    "/v1/auth/passkeys/login",
    "/v1/auth/sso",
    "/v1/auth/sso/start",
    "/v1/auth/sso/finish",
}


def test_only_health_leaks_and_signing_in_are_open_to_anybody() -> None:
    open_paths = {route.path for route in ROUTES if route.principal is None}
    assert open_paths == {"/healthz", "/readyz", "/metrics", "/v1/leaks"} | SIGN_IN


async def test_no_route_answers_without_a_key_or_with_one_of_another_kind(api: Api) -> None:
    for route in GUARDED:
        content = b"{}" if route.body else None
        headers = {"content-type": "application/json"} if route.body else {}
        for caller in (None, "bsk_nonsense", *CALLERS):
            if caller is not None and CALLERS.get(caller) is route.principal:
                continue
            response = await api.call(
                route.method, address(route), caller=caller, content=content, headers=headers
            )
            code = {None: "missing_api_key", "bsk_nonsense": "invalid_api_key"}.get(
                caller, "wrong_key_type"
            )
            case = (route.method, route.path, caller)
            assert response.status_code == 401, case
            assert response.json()["error"]["code"] == code, case
            assert response.json()["error"]["type"] == "authentication_error"
            assert response.headers["www-authenticate"] == "Bearer"


async def test_another_accounts_key_answers_as_an_unknown_one(api: Api) -> None:
    _, stranger = await api.open_account()
    made = await api.post("/v1/account/keys", {"name": "Mine", "credit_limit": 5})
    for method, end in (("GET", ""), ("PATCH", ""), ("DELETE", ""), ("POST", "/rotate")):
        answers = []
        for key_id in (made["id"], 2, 1, 999_999_999):
            for content in (b"{}", b'{"name":"Stolen"}', b'{"bogus":1}'):
                response = await api.call(
                    method,
                    f"/v1/account/keys/{key_id}{end}",
                    caller=stranger,
                    content=content if method in {"PATCH", "POST"} else None,
                    headers={"content-type": "application/json"},
                )
                body = response.json()
                body["error"].pop("request_id")
                answers.append((response.status_code, str(sorted(response.headers)), str(body)))
        assert len(set(answers)) == 1, method
        assert answers[0][0] == 404
    assert (await api.get(f"/v1/account/keys/{made['id']}"))["name"] == "Mine"
    seen = [await api.get(path, caller=stranger) for path in ("/v1/account/keys",)]
    assert seen == [{"keys": []}]


NO_IDS: list[str] = [
    *("0", "-1", "+3", "03", "3.0", "3e0", "0x3", "3_0", "%EF%BC%93", "%D9%A3", "3%20"),
    *("%203", "3.", "3%00", "%00", "3;x", "3%0A", "abc", "null", "1" * 19, "9" * 19),
    *("9223372036854775808", "1" * 30, "x" * 9_000, "..%2f..%2fetc%2fpasswd"),
    *("%2e%2e%2f", "%252e%252e", "00000000-0000-0000-0000-000000000000", "..%5c"),
]


async def test_what_cannot_be_an_id_answers_as_an_unknown_one(api: Api) -> None:
    for key_id in NO_IDS:
        answers = []
        for text in (key_id, "999999999"):
            response = await api.call("GET", f"/v1/account/keys/{text}")
            body = response.json()
            body["error"].pop("request_id")
            answers.append((response.status_code, body))
        assert answers[0] == answers[1]
        assert answers[0][0] == 404


NO_ROUTES: list[str] = [
    *(
        "/v1/account/",
        "/v1//account",
        "/V1/account",
        "/v1/account/keys/",
        "/v1/account/keys//3",
    ),
    *("/v1/accounts", "/v1/account/balance/x", "/"),
    *("/docs", "/redoc", "/v1/account/balance%2f", "/v1/account;x=1/balance", "//v1/account"),
]


async def test_what_is_not_a_route_is_404_in_our_shape(api: Api) -> None:
    for path in NO_ROUTES:
        url = f"http://bursar.test{path}"
        response = await api.call("GET", url)
        assert response.status_code == 404
        assert response.json()["error"]["code"] == "not_found"
        assert "detail" not in response.json()


async def test_a_method_that_a_path_has_not_is_405_and_says_which_it_has(api: Api) -> None:
    expected = {
        "/v1/account": "GET",
        "/v1/account/keys": "GET, POST",
        "/v1/account/keys/3": "DELETE, GET, PATCH",
        "/v1/operator/accounts/1/suspend": "POST",
        "/healthz": "GET",
    }
    for path, allowed in expected.items():
        for method in ("PUT", "TRACE", "HEAD", "OPTIONS", "FOO"):
            response = await api.call(method, path)
            assert response.status_code == 405, (method, path)
            assert response.headers["allow"] == allowed
    overridden = await api.call(
        "GET", "/v1/account/keys/3", headers={"x-http-method-override": "DELETE"}
    )
    assert overridden.status_code == 200
    assert (await api.call("GET", "/v1/account/keys/3")).status_code == 200


async def test_the_document_describes_every_route_and_no_framework_error(api: Api) -> None:
    document = await api.get("/openapi.json", caller=None)
    described = {
        (method.upper(), path) for path, item in document["paths"].items() for method in item
    }
    assert described == {(route.method, route.path) for route in ROUTES}
    assert "HTTPValidationError" not in str(document)
    created = document["paths"]["/v1/account/keys"]["post"]
    assert set(created["responses"]) == {"201", "default"}
    fields = created["requestBody"]["content"]["application/json"]["schema"]
    assert {"name", "credit_limit", "expires_at"} < set(fields["properties"])
    assert fields["additionalProperties"] is False
    assert created["security"] == [{"bearer": []}, {"x-api-key": []}]
    operations = [
        item["operationId"] for path in document["paths"].values() for item in path.values()
    ]
    assert len(operations) == len(set(operations))


def test_every_route_of_the_application_is_one_of_the_frameworks_plain_ones(api: Api) -> None:
    # A mounted application or a static folder would be outside the registry's test above.
    for route in api.app.routes:
        assert isinstance(route, APIRoute) or (route.path == "/openapi.json")  # type: ignore[attr-defined]
