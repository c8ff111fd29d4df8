"""A sign-in goes on by itself: when it is renewed, by whom, and what becomes of its tokens.

The steps neither wait nor send, so that every case is tried without either.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import keyring
import pytest
from keyring.backend import KeyringBackend
from keyring.errors import KeyringLocked, PasswordDeleteError

from bursar import (
    AsyncBursar,
    Bursar,
    BursarError,
    ConfigurationError,
    ConnectionFailed,
    MissingDependency,
    ServerFailed,
    TimedOut,
    Unauthenticated,
)
from bursar.sdk import configuration, flow
from bursar.sdk.calls import Answer, Call, nothing
from bursar.sdk.configuration import Options
from bursar.sdk.flow import Send, Steps, Wait
from bursar.sdk.sessions import stores
from bursar.sdk.sessions.renewal import Session
from bursar.sdk.sessions.stores import FileStore, KeyringStore, MemoryStore, SignedIn, Store
from bursar.sdk.values import Secret
from tests.sdk.test_flow import refusal

URL = "http://b"
ACCESS = "eyJhbGciOiJFZERTQSJ9.eyJhIjoxfQ." + "s" * 86
REFRESH = "brt_" + "0a" * 32
READ = Call("GET", "/v1/x", nothing)
GONE = ConnectionFailed("gone")
FINE = Answer(200, {}, b"{}")
DENIED = refusal(401, "invalid_token")
STORES = ("memory", "file", "keyring")


class Keyring(KeyringBackend):
    """A keyring in memory."""

    priority = 1

    def __init__(self) -> None:
        super().__init__()
        self.kept: dict[tuple[str, str], str] = {}
        self.is_locked = False

    def get_password(self, service: str, username: str) -> str | None:
        if self.is_locked:
            raise KeyringLocked("it is locked")
        return self.kept.get((service, username))

    def set_password(self, service: str, username: str, password: str) -> None:
        self.kept[service, username] = password

    def delete_password(self, service: str, username: str) -> None:
        if self.kept.pop((service, username), None) is None:
            raise PasswordDeleteError("there is none")


@pytest.fixture(autouse=True)
def ring() -> Iterator[Keyring]:
    """Not the keyring of whoever runs the tests."""
    before, found = keyring.get_keyring(), Keyring()
    keyring.set_keyring(found)
    yield found
    keyring.set_keyring(before)


def held(*, left_s: float = 900, renew_in_s: float = 800, turn: int = 0) -> SignedIn:
    """Tokens of the turn-th renewal, which have so long to live."""
    now_s = time.time()
    return SignedIn(
        base_url=URL,
        email="ann@example.test",
        account_id=1,
        user_id=2,
        session_id=3,
        role="admin",
        access_token=Secret(f"{ACCESS}{turn}"),
        refresh_token=Secret(f"{REFRESH}{turn}"),
        renew_from_s=now_s + renew_in_s,
        access_until_s=now_s + left_s,
    )


DUE = {"left_s": 60.0, "renew_in_s": -1.0}
OVER = {"left_s": -1.0, "renew_in_s": -60.0}


def renewed(turn: int = 1) -> Answer:
    """The server's answer to a renewal."""
    body = {
        "access_token": f"{ACCESS}{turn}",
        "token_type": "Bearer",
        "expires_in": 900,
        "expires_at": "2031-01-01T00:15:00Z",
        "refresh_token": f"{REFRESH}{turn}",
        "refresh_token_expires_at": "2031-01-31T00:00:00Z",
        "session_id": 3,
        "user_id": 2,
        "account_id": 1,
        "role": "admin",
    }
    return Answer(200, {}, json.dumps(body).encode())


def make(kind: str) -> Store:
    """A store of this kind."""
    if kind == "memory":
        return MemoryStore()
    return FileStore("default") if kind == "file" else KeyringStore("default")


def session_of(tokens: SignedIn, store: Store | None = None) -> Session:
    """A session whose tokens are kept."""
    store = MemoryStore() if store is None else store
    store.save(tokens)
    return Session(store, URL)


def options_of(session: Session, *, retries: int = 2) -> Options:
    """The options of a client that has signed in."""
    return Options(URL, None, max_retries=retries, session=session)


def drive(
    steps: Steps[Any], came: Sequence[Answer | BursarError] = ()
) -> tuple[Any, list[Send], list[float]]:
    """What steps come to, what they sent and how they waited, where the network answers so."""
    answers, sent, waits = list(came), [], []
    try:
        step = next(steps)
        while True:
            if isinstance(step, Wait):
                waits.append(step.seconds)
                step = steps.send(None)
            else:
                sent.append(step)
                step = steps.send(answers.pop(0))
    except StopIteration as done:
        assert not answers, "it gave up before its time"
        return done.value, sent, waits
    except BursarError as error:
        assert not answers, "it gave up before its time"
        return error, sent, waits


def bearers(sent: list[Send]) -> list[str | None]:
    """Who each request was from."""
    return [each.headers.get("authorization") for each in sent]


def test_a_token_that_is_good_for_a_while_is_used_as_it_is() -> None:
    found, sent, waits = drive(flow.exchange(READ, options_of(session_of(held()))), [FINE])
    assert found is FINE
    assert (bearers(sent), waits) == ([f"Bearer {ACCESS}0"], [])


@pytest.mark.parametrize("kind", STORES)
@pytest.mark.parametrize("life", [DUE, OVER])
def test_a_token_is_renewed_before_it_expires(kind: str, life: dict[str, float]) -> None:
    store = make(kind)
    session = session_of(held(**life), store)
    found, sent, _ = drive(flow.exchange(READ, options_of(session)), [renewed(), FINE])
    assert found is FINE
    assert [each.url for each in sent] == [f"{URL}/v1/auth/refresh", f"{URL}/v1/x"]
    assert json.loads(sent[0].content or b"") == {"refresh_token": f"{REFRESH}0"}
    assert bearers(sent) == [None, f"Bearer {ACCESS}1"]
    kept = store.load()
    assert kept is not None
    assert (kept.access_token, kept.refresh_token) == (f"{ACCESS}1", f"{REFRESH}1")
    # A minute ahead, by this machine's clock alone.
    assert 830 < kept.renew_from_s - time.time() <= 840
    assert (session.email, session.account_id) == ("ann@example.test", 1)
    # And the next call takes what this one got.
    assert bearers(drive(flow.exchange(READ, options_of(session)), [FINE])[1]) == [
        f"Bearer {ACCESS}1"
    ]


@pytest.mark.parametrize("failure", [GONE, refusal(503), refusal(429)])
def test_a_server_that_cannot_renew_now_fails_no_call_while_the_token_is_good(
    failure: Answer | BursarError,
) -> None:
    session = session_of(held(**DUE))
    found, sent, waits = drive(flow.exchange(READ, options_of(session)), [failure, FINE])
    assert found is FINE
    assert (bearers(sent), waits) == ([None, f"Bearer {ACCESS}0"], [])


def test_a_token_that_is_over_is_renewed_as_often_as_a_call_may_be_tried() -> None:
    session = session_of(held(**OVER))
    read = flow.exchange(READ, options_of(session))
    found, sent, waits = drive(read, [GONE, refusal(503), renewed(), FINE])
    assert found is FINE
    assert len(waits) == 2
    # The same token each time: the server gives a lost answer once more.
    assert sent[0].content == sent[1].content == sent[2].content
    failed, _, _ = drive(
        flow.exchange(READ, options_of(session_of(held(**OVER)), retries=0)), [refusal(500)]
    )
    assert isinstance(failed, ServerFailed)


@pytest.mark.parametrize("kind", STORES)
@pytest.mark.parametrize("code", ["refresh_reused", "invalid_refresh_token"])
def test_a_sign_in_that_is_over_is_forgotten(kind: str, code: str) -> None:
    store = make(kind)
    session = session_of(held(**DUE), store)
    failed, _, _ = drive(flow.exchange(READ, options_of(session)), [refusal(401, code)])
    assert isinstance(failed, Unauthenticated)
    assert failed.code == code
    assert store.load() is None
    later, sent, _ = drive(flow.exchange(READ, options_of(session)))
    assert isinstance(later, ConfigurationError)
    assert "sign in again" in later.message
    assert sent == []


def test_a_token_that_the_server_refuses_is_renewed_once() -> None:
    post = Call("POST", "/v1/x", nothing, body={}, is_kept=True)
    session = session_of(held())
    found, sent, _ = drive(flow.exchange(post, options_of(session)), [DENIED, renewed(), FINE])
    assert found is FINE
    assert bearers(sent) == [f"Bearer {ACCESS}0", None, f"Bearer {ACCESS}1"]
    assert sent[0].headers["idempotency-key"] == sent[2].headers["idempotency-key"]
    failed, sent, _ = drive(
        flow.exchange(READ, options_of(session_of(held()))), [DENIED, renewed(), DENIED]
    )
    assert isinstance(failed, Unauthenticated)
    assert len(sent) == 3


def test_what_else_is_unauthenticated_is_no_reason_to_renew() -> None:
    wrong = refusal(401, "wrong_key_type")
    failed, sent, _ = drive(flow.exchange(READ, options_of(session_of(held()))), [wrong])
    assert isinstance(failed, Unauthenticated)
    assert len(sent) == 1


def test_a_key_is_used_instead_of_a_sign_in_where_there_is_one() -> None:
    options = replace(options_of(session_of(held(**OVER))), api_key=Secret("bpk_x"))
    assert bearers(drive(flow.exchange(READ, options), [FINE])[1]) == ["Bearer bpk_x"]


# ── Several at once ─────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("kind", STORES)
def test_one_renews_and_the_others_take_what_it_got(kind: str) -> None:
    store = make(kind)
    session = session_of(held(**OVER), store)
    # Another client; of a file, of another program too.
    other = Session(make(kind) if kind != "memory" else store, URL)
    first = flow.exchange(READ, options_of(session))
    assert isinstance(next(first), Send)
    second = flow.exchange(READ, options_of(other))
    waits = [next(second), second.send(None)]
    assert all(isinstance(step, Wait) for step in waits)
    done = first.send(renewed())
    assert isinstance(done, Send)
    request = second.send(None)
    assert isinstance(request, Send)
    assert request.headers["authorization"] == f"Bearer {ACCESS}1"


def test_nobody_waits_for_a_renewal_while_the_token_is_good() -> None:
    session = session_of(held(**DUE))
    first = flow.exchange(READ, options_of(session))
    assert isinstance(next(first), Send)
    assert bearers(drive(flow.exchange(READ, options_of(session)), [FINE])[1]) == [
        f"Bearer {ACCESS}0"
    ]


@pytest.mark.parametrize("kind", STORES)
def test_a_renewal_that_is_given_up_is_left_to_the_next(kind: str) -> None:
    session = session_of(held(**OVER), make(kind))
    first = flow.exchange(READ, options_of(session))
    assert isinstance(next(first), Send)
    first.close()
    assert drive(flow.exchange(READ, options_of(session)), [renewed(), FINE])[0] is FINE


def test_a_renewal_elsewhere_is_not_waited_for_without_end(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    store = MemoryStore()
    session = session_of(held(**OVER), store)
    assert store.try_lock() is not None
    steps = flow.exchange(READ, options_of(session))
    assert isinstance(next(steps), Wait)
    now_s = time.monotonic()
    monkeypatch.setattr(time, "monotonic", lambda: now_s + 121)
    assert isinstance(drive(steps)[0], TimedOut)


def test_signing_out_forgets_in_any_case_and_ends_it_at_the_server() -> None:
    ended = Answer(200, {}, b'{"revoked":true}')
    for answer in (ended, GONE):
        store = FileStore("default")
        session = session_of(held(), store)
        found, sent, _ = drive(session.end(options_of(session, retries=0)), [answer])
        assert found is (None if answer is ended else GONE)
        assert json.loads(sent[0].content or b"") == {"token": f"{REFRESH}0"}
        assert bearers(sent) == [None]
        assert store.load() is None
        # Once more there is nothing to end.
        assert drive(session.end(options_of(session)))[1] == []


# ── On the disk ─────────────────────────────────────────────────────────────────────────────────


def folder() -> Path:
    """Where sign-ins are kept."""
    return configuration.profiles_path().parent / "sessions"


def test_a_file_is_its_owners_alone() -> None:
    FileStore("default").save(held())
    path = folder() / "default.json"
    assert path.stat().st_mode & 0o777 == 0o600
    assert folder().stat().st_mode & 0o777 == 0o700
    assert [each.name for each in folder().iterdir()] == ["default.json"]
    path.chmod(0o644)
    with pytest.raises(ConfigurationError, match="chmod 600"):
        FileStore("default").load()
    with pytest.raises(ConfigurationError, match="chmod 600"):
        Bursar()


@pytest.mark.parametrize(
    "text",
    [
        *("", "{", "[]", "null", "{}", '{"base_url": 1}', "\0"),
        *('{"base_url": "http://b"}', '{"base_url": "http://b", "access_token": 1}'),
    ],
)
def test_a_file_that_says_nothing_is_refused_with_what_to_do(text: str) -> None:
    folder().mkdir(parents=True)
    path = folder() / "default.json"
    path.write_text(text)
    path.chmod(0o600)
    with pytest.raises(ConfigurationError, match="Sign in again"):
        FileStore("default").load()
    # Whoever does so is not told so once more.
    assert configuration.find_url(base_url=None, profile=None)[1] == "default"
    keep: stores.Keep
    for keep in ("file", "keyring"):
        stores.make("default", keep).save(held())
        found = stores.find("default")
        assert found is not None
        assert found[1].load() is not None


def test_a_file_that_cannot_be_written_is_an_error_that_says_so() -> None:
    folder().parent.mkdir(parents=True, exist_ok=True)
    folder().write_text("in the way")
    for work in (lambda: FileStore("default").save(held()), FileStore("default").try_lock):
        with pytest.raises(ConfigurationError, match="sessions"):
            work()


@pytest.mark.parametrize("name", ["", "..", ".hidden", "a/b", "a\\b", "ä", "x" * 65, "a\n"])
def test_a_name_that_could_leave_the_folder_is_refused(name: str) -> None:
    assert stores.find(name) is None
    with pytest.raises(ConfigurationError, match="cannot be the name"):
        stores.make(name, "file")


def test_the_keyring_has_the_tokens_and_the_disk_has_not(ring: Keyring) -> None:
    KeyringStore("default").save(held())
    on_disk = (folder() / "default.json").read_text()
    assert json.loads(on_disk) == {"base_url": URL, "kept_in": "keyring"}
    assert f"{REFRESH}0" in ring.kept["bursar", "default"]
    assert KeyringStore("default").load() == stores.find("default")[1].load()  # type: ignore[index]
    ring.kept["bursar", "default"] = "[]"
    with pytest.raises(ConfigurationError, match="Sign in again"):
        KeyringStore("default").load()
    ring.is_locked = True
    with pytest.raises(ConfigurationError, match=r"locked.*keep=.file"):
        KeyringStore("default").load()


def test_without_the_package_the_keyring_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(__import__("sys").modules, "keyring", None)
    with pytest.raises(MissingDependency, match=r"bursar\[keyring\]"):
        KeyringStore("default").save(held())


def test_a_sign_in_is_kept_in_one_place(ring: Keyring) -> None:
    stores.make("default", "file").save(held(turn=1))
    stores.make("default", "keyring").save(held(turn=2))
    assert f"{REFRESH}1" not in (folder() / "default.json").read_text()
    stores.make("default", "file").save(held(turn=3))
    assert ring.kept == {}
    found = stores.find("default")
    assert found is not None
    assert isinstance(found[1], FileStore)


# ── Found by a client ───────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("kind", [Bursar, AsyncBursar])
def test_a_client_without_a_key_finds_the_sign_in_of_its_profile(
    kind: type[Bursar | AsyncBursar], monkeypatch: pytest.MonkeyPatch
) -> None:
    FileStore("default").save(held())
    FileStore("work").save(replace(held(), base_url="http://work"))
    for client, url in ((kind(), URL), (kind(profile="work"), "http://work")):
        assert client.options.session is not None
        assert client.options.base_url == url == client.options.session.base_url
        assert repr(client) == f"{kind.__name__}({url!r}, signed in)"
    assert kind("bpk_x").options.session is None
    assert kind().with_options(api_key="bpk_x").options.session is None
    assert kind().with_options(timeout_s=1).options.session is not None
    # At no other address than its own.
    assert kind(base_url="http://elsewhere").options.session is None
    assert kind(base_url=f"{URL}/v1").options.session is not None
    monkeypatch.setenv("BURSAR_API_KEY", "bpk_env")
    assert kind().options.session is None
    assert kind(profile="work").options.session is not None


def test_a_profiles_key_wins_over_a_sign_in_and_so_none_is_kept_beside_it() -> None:
    path = configuration.profiles_path()
    path.parent.mkdir(parents=True)
    path.write_text('[default]\napi_key = "bpk_x"\n[work]\nbase_url = "http://work"\n')
    path.chmod(0o600)
    FileStore("default").save(held())
    assert Bursar().options.api_key == "bpk_x"
    with pytest.raises(ConfigurationError, match="would win"):
        Bursar.log_in("ann@example.test", "x", keep="file", base_url=URL)
    # One that is kept for another address than the profile's is not used there.
    FileStore("work").save(held())
    assert Bursar(profile="work").options.session is None


def test_whoever_signs_in_elsewhere_meanwhile_takes_no_client_along() -> None:
    session = session_of(held(**OVER), FileStore("default"))
    FileStore("default").save(replace(held(turn=5), base_url="http://elsewhere"))
    failed, sent, _ = drive(flow.exchange(READ, options_of(session)))
    assert isinstance(failed, ConfigurationError)
    assert sent == []


def test_a_client_with_a_key_cannot_sign_out() -> None:
    with pytest.raises(ConfigurationError, match="uses a key"):
        Bursar("bpk_x").log_out()


def test_no_repr_shows_a_token() -> None:
    tokens = held()
    session = session_of(tokens)
    shown = [repr(tokens), repr(session), repr(options_of(session)), str(asdict(tokens).keys())]
    read = Bursar("bpk_x").auth.refresh
    call = read._describe(tokens.refresh_token)
    value = call.read(renewed())
    shown += [repr(value), str(value), value._repr_html_()]
    for text in shown:
        assert "ssss" not in text
        assert "0a0a0a" not in text
