"""A sign-in service that nobody here wrote signs people in, as the settings file says."""

from __future__ import annotations

from typing import Any

import httpx2
import pytest

from tests.live import Installation
from tests.sso.mock_provider import MockProvider

BACK = "http://127.0.0.1:53211/callback"
SETTINGS = """
[[sso_providers]]
name = "acme"
issuer = "{issuer}"
client_id = "bursar"
client_secret_env = "ACME_SECRET"
domains = ["acme.example"]
creates_people = true
is_internal = true

[[sso_providers.roles]]
account_id = 1
group = "platform"
role = "admin"

[[sso_providers.roles]]
account_id = 1
group = "everybody"
role = "viewer"
"""


def enter(made: Installation, provider: MockProvider, subject: str) -> httpx2.Response:
    """Sign in at the service and come back."""
    body = {"provider": "acme", "redirect_uri": BACK}
    began = httpx2.post(f"{made.url}/v1/auth/sso/start", json=body, timeout=30)
    assert began.status_code == 200, began.text
    flow: dict[str, Any] = began.json()
    where, back = provider.visit(flow["authorization_url"], subject)
    assert where == BACK
    sent = {"flow_token": flow["flow_token"], **back}
    return httpx2.post(f"{made.url}/v1/auth/sso/finish", json=sent, timeout=30)


@pytest.mark.timeout(240)
@pytest.mark.parametrize("kind", ["sqlite"])
def test_people_sign_in_at_a_real_service_with_the_roles_of_their_groups(
    made: Installation, provider: MockProvider
) -> None:
    settings = made.data_dir / "bursar.toml"
    settings.write_text(settings.read_text() + SETTINGS.format(issuer=provider.issuer))
    made.environment["ACME_SECRET"] = "anything does there"
    made.start()
    ann = {"email": "ann@acme.example", "email_verified": True, "name": "Ann"}
    provider.put("ann", **ann, groups=["everybody", "platform"])
    provider.put("bob", email="bob@acme.example", email_verified=False, groups=["platform"])
    entered = enter(made, provider, "ann")
    assert entered.status_code == 200, entered.text
    assert entered.json()["role"] == "admin"
    headers = {"authorization": f"Bearer {entered.json()['access_token']}"}
    me = httpx2.get(f"{made.url}/v1/account/users/me", headers=headers, timeout=30).json()
    assert (me["email"], me["name"]) == ("ann@acme.example", "Ann")
    assert enter(made, provider, "bob").json()["error"]["code"] == "sso_no_access"
    provider.put("ann", **ann, groups=["everybody"])
    assert enter(made, provider, "ann").json()["role"] == "viewer"
    # In force at once, for the tokens of before as well.
    key = {"name": "x", "credit_limit": 1}
    refused = httpx2.post(f"{made.url}/v1/account/keys", json=key, headers=headers, timeout=30)
    assert refused.json()["error"]["code"] == "insufficient_role"
    made.verify()
