"""Signing in from the command line: what is asked, what is kept and for whom, and how it ends."""

from __future__ import annotations

import json
import stat
from collections.abc import Callable
from pathlib import Path

import pyotp
import pytest

from bursar import Bursar as Client
from tests.cli.conftest import Bursar
from tests.live import Installation

Lines = Callable[..., None]

# Serving takes its time where other tests run.
pytestmark = pytest.mark.timeout(240)


def config() -> Path:
    """What was kept, in this test's own configuration directory."""
    return Path("config").resolve() / "bursar"


def test_a_password_signs_in_and_logout_ends_it_at_the_server(
    shop: Installation, bursar: Bursar, lines: Lines
) -> None:
    lines(shop.secrets.password)
    done = bursar("login", shop.url, "--email", shop.secrets.email, "--json")
    assert done.json == {
        "profile": "default",
        "url": shop.url,
        "email": shop.secrets.email,
        "account": "1 Default",
        "is_signed_in": True,
    }
    assert shop.secrets.password not in done.stdout + done.stderr
    assert bursar("status", "--json").json["url"] == shop.url
    signed_in = Client(profile="default")
    assert signed_in.account.get().id == 1
    token = signed_in.options.session
    assert token is not None
    assert bursar("logout", "--json").json == {"profile": "default", "is_signed_in": False}
    for again in ("status", "logout"):
        assert bursar(again).code in (2, 3)
    signed_in.close()


def test_what_is_kept_is_its_owners_alone(shop: Installation, bursar: Bursar, lines: Lines) -> None:
    lines(shop.secrets.password)
    bursar("login", shop.url, "--email", shop.secrets.email)
    lines(shop.secrets.inference_key)
    bursar("login", shop.url, "--with-key", "--profile", "calls")
    found = [config(), *config().rglob("*")]
    assert len(found) >= 4
    for path in found:
        assert not path.stat().st_mode & (stat.S_IRWXG | stat.S_IRWXO), path
    bursar("logout")
    bursar("logout", "--profile", "calls")
    left = "".join(path.read_text("utf-8") for path in config().rglob("*") if path.is_file())
    assert shop.secrets.inference_key not in left
    assert "refresh_token" not in left


@pytest.mark.parametrize(
    ("secret", "kind"),
    [
        ("inference_key", "inference"),
        ("provisioning_key", "provisioning"),
        ("operator_key", "operator"),
    ],
)
def test_a_key_is_taken_for_what_it_is(
    shop: Installation, bursar: Bursar, lines: Lines, secret: str, kind: str
) -> None:
    key = getattr(shop.secrets, secret)
    lines(key)
    done = bursar("login", shop.url, "--with-key", "--profile", kind, "--json")
    assert done.json["kind"] == kind
    assert key not in done.stdout + done.stderr
    if kind == "inference":
        shown = bursar("status", "--profile", kind, "--json").json
        assert shown["key"]["limits"][0]["name"] == "key:3/cost/lifetime"
        assert bursar("balance", "--profile", kind).code == 4
    if kind == "provisioning":
        assert bursar("balance", "--profile", kind).code == 0


def test_a_second_factor_is_asked_for_where_there_is_one(
    shop: Installation, bursar: Bursar, lines: Lines
) -> None:
    made = shop.run("accounts", "create", "Careful", "--json")
    assert json.loads(made)["name"] == "Careful"
    with Client.log_in(shop.secrets.email, shop.secrets.password, base_url=shop.url) as client:
        secret = client.auth.begin_second_factor(shop.secrets.password).secret
        totp = pyotp.TOTP(secret)
        codes = client.auth.confirm_second_factor(totp.now()).recovery_codes
        try:
            lines(shop.secrets.password, str(codes[0]))
            done = bursar("login", shop.url, "--email", shop.secrets.email, "--profile", "two")
            assert done.code == 0, done.stderr
            lines(shop.secrets.password)
            done = bursar("login", shop.url, "--email", shop.secrets.email, "--profile", "one")
            assert done.code == 2
            assert "give the code as a line of standard input" in done.stderr
        finally:
            client.auth.remove_second_factor(shop.secrets.password, code=str(codes[1]))
    bursar("logout", "--profile", "two")


def test_what_is_wrong_with_a_sign_in_is_a_sentence(
    shop: Installation, bursar: Bursar, lines: Lines
) -> None:
    email = ("--email", shop.secrets.email)
    lines("not the password")
    refused = bursar("login", shop.url, *email, "--json")
    assert refused.code == 4
    assert json.loads(refused.stderr)["error"]["code"] == "invalid_credentials"
    lines("bpk_nonsense")
    assert bursar("login", shop.url, "--with-key").code == 4
    for given, said in (
        (["--with-key", *email], "needs no --email"),
        ([], "no terminal"),
        (email, "no terminal"),
        (["--with-key"], "no terminal"),
    ):
        lines()
        done = bursar("login", shop.url, *given)
        assert done.code == 2, given
        assert said in done.stderr
    lines("x")
    assert bursar("login", "ftp://nowhere", "--with-key").code == 2
    lines(shop.secrets.password)
    assert bursar("login", "http://127.0.0.1:1", *email).code == 5
    assert not list(config().rglob("*.toml"))


def test_one_profile_is_one_person_or_one_key(
    shop: Installation, bursar: Bursar, lines: Lines
) -> None:
    lines(shop.secrets.password)
    bursar("login", shop.url, "--email", shop.secrets.email)
    lines(shop.secrets.inference_key)
    done = bursar("login", shop.url, "--with-key")
    assert done.code == 2
    assert "first bursar logout" in done.stderr
    bursar("logout")
    lines(shop.secrets.inference_key)
    assert bursar("login", shop.url, "--with-key").code == 0
    lines(shop.secrets.password)
    assert bursar("login", shop.url, "--email", shop.secrets.email).code == 2


def test_a_profile_may_have_any_name(shop: Installation, bursar: Bursar, lines: Lines) -> None:
    names = ["a b", 'quo"te', "back\\slash", "ümlaut", "dotted.name", "line\nbreak"]
    for name in names:
        lines(shop.secrets.inference_key)
        assert bursar("login", shop.url, "--with-key", "--profile", name).code == 0, name
    for name in names:
        assert bursar("status", "--profile", name, "--json").json["key"]["id"] == 3
        assert bursar("logout", "--profile", name).code == 0


def test_logging_out_works_while_the_server_is_away(
    tmp_path: Path, bursar: Bursar, lines: Lines
) -> None:
    made = Installation(tmp_path / "data")
    try:
        made.start()
        lines(made.secrets.password)
        assert bursar("login", made.url, "--email", made.secrets.email).code == 0
    finally:
        made.close()
    done = bursar("logout")
    assert done.code == 0
    assert "Forgotten here" in done.stderr
    assert bursar("logout").code == 2
