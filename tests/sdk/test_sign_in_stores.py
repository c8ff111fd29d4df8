"""A place that cannot be written fails no call while the tokens are good, and ends no sign-in."""

from __future__ import annotations

import json
import logging
import time

import pytest

from bursar import ConfigurationError, InvalidAnswer, Unauthenticated
from bursar.sdk import flow
from bursar.sdk.calls import Answer
from bursar.sdk.sessions.renewal import Session
from bursar.sdk.sessions.stores import FileStore, MemoryStore, Release, SignedIn
from tests.sdk.test_flow import refusal
from tests.sdk.test_sessions import (
    ACCESS,
    DUE,
    FINE,
    OVER,
    READ,
    REFRESH,
    URL,
    bearers,
    drive,
    held,
    options_of,
    renewed,
    session_of,
)


class Failing(MemoryStore):
    """A place where what is named here cannot be done just now."""

    def __init__(self) -> None:
        super().__init__()
        self.broken: set[str] = set()

    def _fail(self, what: str) -> None:
        if what in self.broken:
            raise ConfigurationError("sessions/default.json cannot be used: No space left.")

    def load(self) -> SignedIn | None:
        self._fail("load")
        return super().load()

    def save(self, held: SignedIn) -> None:
        self._fail("save")
        super().save(held)

    def forget(self) -> None:
        self._fail("forget")
        super().forget()

    def try_lock(self) -> Release | None:
        self._fail("lock")
        return super().try_lock()


def failing(life: dict[str, float], *broken: str) -> tuple[Failing, Session]:
    """A place with tokens, a session that has read them, and what is broken since."""
    store = Failing()
    store.save(held(**life))
    session = Session(store, URL, store.load())
    store.broken = set(broken)
    return store, session


@pytest.mark.parametrize("broken", ["lock", "load"])
def test_a_place_that_cannot_be_used_fails_no_call_while_the_token_is_good(broken: str) -> None:
    _, session = failing(DUE, broken)
    found, sent, _ = drive(flow.exchange(READ, options_of(session)), [FINE])
    assert found is FINE
    assert bearers(sent) == [f"Bearer {ACCESS}0"]
    _, session = failing(OVER, broken)
    failed, sent, _ = drive(flow.exchange(READ, options_of(session)))
    assert isinstance(failed, ConfigurationError)
    assert sent == []


def test_a_folder_that_cannot_be_written_fails_no_call_while_the_token_is_good() -> None:
    store = FileStore("default")
    session = session_of(held(**DUE), store)
    assert session.email
    folder = store._path.parent
    folder.rename(folder.with_name("moved"))
    folder.write_text("in the way")
    found, sent, _ = drive(flow.exchange(READ, options_of(session)), [FINE])
    assert (found, bearers(sent)) == (FINE, [f"Bearer {ACCESS}0"])


def test_whoever_signed_out_elsewhere_is_told_so_even_while_the_token_is_good() -> None:
    store, session = failing(DUE)
    store.forget()
    failed, _, _ = drive(flow.exchange(READ, options_of(session)))
    assert isinstance(failed, ConfigurationError)
    assert "sign in again" in failed.message


def test_a_page_instead_of_tokens_fails_no_call_while_the_token_is_good() -> None:
    _, session = failing(DUE)
    page = Answer(200, {"content-type": "text/html"}, b"<html>")
    found, sent, _ = drive(flow.exchange(READ, options_of(session)), [page, FINE])
    assert (found, bearers(sent)) == (FINE, [None, f"Bearer {ACCESS}0"])


def test_tokens_that_cannot_be_kept_go_on_in_memory_and_are_kept_once_they_can_be(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    store, session = failing(OVER, "save")
    options = options_of(session)
    with caplog.at_level(logging.WARNING, "bursar"):
        found, _, _ = drive(flow.exchange(READ, options), [renewed(1), FINE])
    assert found is FINE
    assert "known to this program alone" in caplog.text
    assert REFRESH not in caplog.text
    now_s = time.time()
    for turn in (1, 2):
        monkeypatch.setattr(time, "time", lambda turn=turn: now_s + turn * 1_000)
        _, sent, _ = drive(flow.exchange(READ, options), [renewed(turn + 1), FINE])
        # Never the one that is still kept: it is used up, and would end the session.
        assert json.loads(sent[0].content or b"") == {"refresh_token": f"{REFRESH}{turn}"}
        assert bearers(sent)[1] == f"Bearer {ACCESS}{turn + 1}"
    store.broken.clear()
    monkeypatch.setattr(time, "time", lambda: now_s + 3_000)
    drive(flow.exchange(READ, options), [renewed(4), FINE])
    kept = store.load()
    assert kept is not None
    assert kept.refresh_token == f"{REFRESH}4"


def test_whoever_signs_in_anew_meanwhile_wins_over_what_could_not_be_kept(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    store, session = failing(OVER, "save")
    drive(flow.exchange(READ, options_of(session)), [renewed(1), FINE])
    store.broken.clear()
    now_s = time.time()
    monkeypatch.setattr(time, "time", lambda: now_s + 1_000)
    store.save(held(turn=7))
    _, sent, _ = drive(flow.exchange(READ, options_of(session)), [FINE])
    assert bearers(sent) == [f"Bearer {ACCESS}7"]


def test_a_sign_in_that_cannot_be_forgotten_ends_at_the_server_all_the_same() -> None:
    _, session = failing({}, "forget")
    ended = Answer(200, {}, b'{"revoked":true}')
    failed, sent, _ = drive(session.end(options_of(session)), [ended])
    assert isinstance(failed, ConfigurationError)
    assert [each.url for each in sent] == [f"{URL}/v1/auth/revoke"]
    _, session = failing(OVER, "forget")
    over = refusal(401, "refresh_reused")
    failed, _, _ = drive(flow.exchange(READ, options_of(session)), [over])
    assert isinstance(failed, Unauthenticated)


def test_signing_out_at_another_programs_address_is_not_said_to_be_done() -> None:
    store, session = failing({})
    failed, _, _ = drive(session.end(options_of(session)), [Answer(200, {}, b"<html>")])
    assert isinstance(failed, InvalidAnswer)
    assert store.load() is None
