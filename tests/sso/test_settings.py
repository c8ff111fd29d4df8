"""The settings of sign-in services: every mistake is one sentence, and no secret is in any."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from bursar.bootstrap.people import make_people
from bursar.config import ConfigError, GrantSettings, ProviderSettings, Settings
from bursar.core.people.roles import Role

GOOD = """
[[sso_providers]]
name = "acme"
issuer = "https://login.acme.example/realms/main/"
client_id = "bursar"
client_secret_file = "{secret}"
domains = ["acme.example"]
redirect_urls = ["https://bursar.example.com/back"]
[[sso_providers.roles]]
account_id = 1
group = "platform"
role = "admin"
"""


def provider(**fields: Any) -> ProviderSettings:
    """A service with these settings."""
    given = {"name": "acme", "issuer": "https://login.acme.example", "client_id": "bursar"}
    return ProviderSettings.model_validate(given | fields)


def test_a_settings_file_sets_up_a_service(tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("canary of a secret\n")
    file = tmp_path / "bursar.toml"
    file.write_text(GOOD.format(secret=secret))
    settings = Settings.load(file, {"data_dir": tmp_path, "public_url": "https://b.example.com:8"})
    _, people = make_people(settings)
    found = people.providers["acme"]
    # To the letter: some issuers end with a slash, and their tokens say so.
    assert found.issuer == "https://login.acme.example/realms/main/"
    assert found.title == "acme"
    assert found.find_roles(["platform"]) == {1: Role.ADMIN}
    assert people.party.id == "b.example.com"
    assert people.party.origins == ("https://b.example.com:8",)
    assert "canary" not in repr(settings) + repr(people)
    people.passwords.close()


def test_passkeys_belong_to_the_public_host_unless_it_is_said(tmp_path: Path) -> None:
    given: dict[str, Any] = {"data_dir": tmp_path}
    for more, domain, origins in (
        ({}, "localhost", ("http://localhost:8080",)),
        ({"host": "::"}, "localhost", ("http://localhost:8080",)),
        ({"public_url": "https://b.example.com"}, "b.example.com", ("https://b.example.com",)),
        (
            {"passkey_domain": "example.com", "passkey_origins": "https://a.example.com,http://b"},
            "example.com",
            ("https://a.example.com", "http://b"),
        ),
    ):
        _, people = make_people(Settings(**given, **more))
        assert (people.party.id, people.party.origins) == (domain, origins)
        people.passwords.close()


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"issuer": "http://login.acme.example"}, "without TLS"),
        ({"issuer": "login.acme.example"}, "https://"),
        ({"issuer": "https://user:pass@login.acme.example"}, "credentials"),
        ({"issuer": "https://login.acme.example?x"}, "query"),
        ({"scopes": ["email"]}, "openid"),
        ({"scopes": ["openid", "e\nmail"]}, "words"),
        ({"domains": ["Acme.example"]}, "domain"),
        ({"domains": ["*.acme.example"]}, "domain"),
        ({"domains": ["acme..example"]}, "domain"),
        ({"domains": ["@acme.example"]}, "domain"),
        ({"client_secret_env": "A", "client_secret_file": "b"}, "exclude"),
        ({"name": "Acme!"}, "pattern"),
        ({"roles": [{"account_id": 0, "group": "x", "role": "admin"}]}, "greater"),
        ({"roles": [{"account_id": 1, "group": "", "role": "admin"}]}, "character"),
        ({"roles": [{"account_id": 1, "group": "x", "role": "operator"}]}, "owner"),
        ({"client_secret": "x"}, "Extra"),
    ],
    ids=str,
)
def test_a_mistake_is_said(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        provider(**fields)


def test_two_services_of_one_name_are_refused(tmp_path: Path) -> None:
    file = tmp_path / "bursar.toml"
    file.write_text(GOOD.format(secret="x") * 2)
    with pytest.raises(ConfigError, match="same name"):
        Settings.load(file)


def test_a_secret_that_is_not_there_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ACME_SECRET", raising=False)
    assert provider().read_client_secret() is None
    with pytest.raises(ConfigError, match=r"Sign-in service acme: .*ACME_SECRET.* client secret"):
        provider(client_secret_env="ACME_SECRET").read_client_secret()
    monkeypatch.setenv("ACME_SECRET", "there")
    assert provider(client_secret_env="ACME_SECRET").read_client_secret() == "there"


def test_every_setting_of_a_service_has_a_sentence() -> None:
    for model in (ProviderSettings, GrantSettings):
        for name, field in model.model_fields.items():
            assert (field.description or "").endswith("."), name
