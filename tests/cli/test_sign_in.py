"""Signing in from the command line: what is asked, what is kept and for whom, and how it ends."""

from __future__ import annotations

import json
import stat
import time
from collections.abc import Callable
from pathlib import Path

import pyotp
import pytest
import time_machine

from bursar import Bursar as Client
from bursar.sdk.sessions import stores
from bursar.sdk.sessions.stores import SignedIn
from bursar.sdk.values import Secret
from tests.cli.conftest import Bursar
from tests.cli.test_bad_servers import listening, saying
from tests.live import Installation
from tests.sdk.test_failures import HTML, SECRET, answer

Lines = Callable[..., None]
CLOCKS = ("2020-01-01T00:00:00Z", "2040-01-01T00:00:00Z")

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
    if kind == "operator":
        shown = bursar("status", "--profile", kind, "--json").json
        assert shown == {"place": "server", "url": shop.url, "kind": "operator"}
        assert "An operator's key is for programs" in bursar("status", "--profile", kind).stderr
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


@pytest.mark.parametrize(
    "said",
    [
        answer(b"{}", status="500 Failed"),
        answer(b"{}", status="429 Slowly", head="content-type: application/json\r\nretry-after: 0"),
        answer(HTML, status="403 No"),
        answer(HTML, status="302 Found", head="location: http://127.0.0.1:1/"),
    ],
    ids=["500", "429", "403", "302"],
)
def test_logging_out_is_done_here_whatever_the_server_says(
    bursar: Bursar, lines: Lines, said: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("time.sleep", lambda _: None)
    with listening(saying(said)) as url:
        keep = stores.make("default", "file")
        keep.save(held(url))
        done = bursar("logout", "--json")
    assert done.json == {"profile": "default", "is_signed_in": False}
    assert "at the server the session lasts until it expires" in done.stderr
    assert SECRET not in done.stdout + done.stderr
    assert not list(config().rglob("default.json"))
    assert bursar("logout").code == 2


def held(url: str) -> SignedIn:
    """A sign-in that is good for a while."""
    now_s = time.time()
    secrets = {"access_token": Secret("bat_x"), "refresh_token": Secret("brt_x")}
    return SignedIn(
        base_url=url,
        email="ada@example.com",
        account_id=1,
        user_id=1,
        session_id=1,
        role="owner",
        renew_from_s=now_s + 800,
        access_until_s=now_s + 900,
        **secrets,
    )


def test_a_clock_that_is_wrong_here_does_a_sign_in_no_harm(
    shop: Installation, bursar: Bursar, lines: Lines
) -> None:
    for number, signed_in_at in enumerate(CLOCKS):
        profile = f"at{number}"
        with time_machine.travel(signed_in_at, tick=True):
            lines(shop.secrets.password)
            email = ("--email", shop.secrets.email)
            assert bursar("login", shop.url, *email, "--profile", profile).code == 0
        for at in CLOCKS:
            with time_machine.travel(at, tick=True):
                done = bursar("balance", "--profile", profile)
                assert done.code == 0, (signed_in_at, at, done.stderr)
        assert bursar("logout", "--profile", profile).code == 0
