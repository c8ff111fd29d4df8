"""Hashes, the vault and mail: as slow, as shut and as sure as they are said to be."""

from __future__ import annotations

import asyncio
import os
import stat
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from argon2 import extract_parameters
from structlog.testing import capture_logs

from bursar.adapters import mail, passwords, vault
from bursar.adapters.mail import Letter, NullMailer, Post, SmtpMailer
from bursar.adapters.passwords import PasswordPool
from bursar.adapters.vault import Vault
from bursar.core.errors import Unavailable
from tests.people.house import QUICK

LETTER = Letter("ann@example.test", "A subject", "Hello, ü.\n.\nA line with a dot.\n")


# ── Passwords ───────────────────────────────────────────────────────────────────────────────────


def test_hashes_cost_at_least_what_owasp_asks_for() -> None:
    found = extract_parameters(passwords.hash_password("x"))
    # ASVS 5.0 and the password storage cheat sheet: Argon2id, 19 MiB and 2 passes, or 46 and 1.
    assert found.type.name == "ID"
    assert (found.memory_cost >= 47_104, found.time_cost >= 2) == (True, True)
    assert found.salt_len >= 16


@pytest.fixture
def pool() -> Iterator[PasswordPool]:
    made = PasswordPool(2, hasher=QUICK, most=4)
    yield made
    made.close()


async def test_a_right_password_is_right_and_nobodys_never_is(pool: PasswordPool) -> None:
    hashed = await pool.hash("secret")
    assert await pool.is_right(hashed, "secret")
    assert not await pool.is_right(hashed, "Secret")
    assert not await pool.is_right(None, "secret")
    assert not await pool.is_right(None, "nobody has this password")
    assert not await pool.is_right("no hash at all", "secret")
    assert pool.is_old(passwords.hash_password("secret"))
    assert not pool.is_old(hashed)


async def test_more_than_may_wait_are_refused_and_the_loop_goes_on(pool: PasswordPool) -> None:
    gate = threading.Event()

    def slow(password_hash: str | None, password: str) -> bool:
        return gate.wait(10)

    pool._verify = slow  # type: ignore[method-assign]
    waiting = [asyncio.create_task(pool.is_right("x", "y")) for _ in range(4)]
    await asyncio.sleep(0)
    with pytest.raises(Unavailable) as refused:
        await pool.is_right("x", "y")
    assert (refused.value.code, refused.value.retry_after_s) == ("overloaded", 1)
    gate.set()
    assert await asyncio.gather(*waiting) == [True] * 4
    assert await pool.is_right("x", "y")


# ── The vault ───────────────────────────────────────────────────────────────────────────────────


def test_the_secret_is_made_once_and_is_the_owners_alone(tmp_path: Path) -> None:
    path = tmp_path / "secret.key"
    sealed = vault.load(path).seal(b"plain", purpose="p", about="a")
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert vault.load(path).open(sealed, purpose="p", about="a") == b"plain"
    assert [each.name for each in tmp_path.iterdir()] == ["secret.key"]


def test_of_many_that_start_at_once_all_have_the_same_secret(tmp_path: Path) -> None:
    path, found = tmp_path / "secret.key", []
    threads = [
        threading.Thread(target=lambda: found.append(vault.load(path).fingerprint("x")))
        for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    found.append(vault.load(path).fingerprint("x"))
    assert len(set(found)) == 1


def test_what_was_sealed_for_one_thing_opens_for_no_other() -> None:
    sealed = Vault(b"a" * 32).seal(b"plain", purpose="p", about="a")
    assert b"plain" not in sealed
    assert Vault(b"a" * 32).open(sealed, purpose="p", about="b") is None
    assert Vault(b"a" * 32).open(sealed, purpose="q", about="a") is None
    assert Vault(b"b" * 32).open(sealed, purpose="p", about="a") is None
    for damaged in (b"", sealed[:5], sealed[:-1], sealed[:-1] + b"x"):
        assert Vault(b"a" * 32).open(damaged, purpose="p", about="a") is None


@pytest.mark.parametrize("content", [b"", b"x" * 31, b"x" * 33])
def test_a_file_that_is_no_secret_is_not_used(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "secret.key"
    path.write_bytes(content)
    with pytest.raises(Unavailable) as refused:
        vault.load(path)
    assert refused.value.code == "secret_key_unreadable"


# ── Mail ────────────────────────────────────────────────────────────────────────────────────────


class MailServer:
    """A mail server that takes letters, or refuses so many of them first."""

    def __init__(self, *, refusals: int = 0) -> None:
        self.refusals = refusals
        self.taken: list[bytes] = []
        self.port = 0

    async def talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One conversation."""
        writer.write(b"220 here\r\n")
        while line := await reader.readline():
            word = line[:4].upper()
            if word == b"DATA":
                writer.write(b"354 go on\r\n")
                self.taken.append(await reader.readuntil(b"\r\n.\r\n"))
            elif word == b"MAIL" and self.refusals:
                self.refusals -= 1
                writer.write(b"451 later\r\n")
                continue
            writer.write(b"221 bye\r\n" if word == b"QUIT" else b"250 ok\r\n")
            await writer.drain()
            if word == b"QUIT":
                break
        writer.close()


@asynccontextmanager
async def mail_server(**options: int) -> AsyncIterator[MailServer]:
    made = MailServer(**options)
    async with await asyncio.start_server(made.talk, "127.0.0.1", 0) as server:
        made.port = server.sockets[0].getsockname()[1]
        yield made


@asynccontextmanager
async def posting(post: Post) -> AsyncIterator[None]:
    task = asyncio.create_task(post.run())
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


def smtp(server: MailServer, security: str = "none") -> SmtpMailer:
    return SmtpMailer("127.0.0.1", server.port, "bursar@example.test", security)


async def test_a_letter_reaches_the_mail_server_as_it_was_written() -> None:
    async with mail_server() as server:
        post = Post(smtp(server))
        async with posting(post):
            assert post.put(LETTER)
            await post.settle()
    (taken,) = server.taken
    assert b"To: ann@example.test" in taken
    assert b"Subject: A subject" in taken


async def test_a_letter_that_is_refused_at_first_is_sent_again() -> None:
    async with mail_server(refusals=2) as server:
        post = Post(smtp(server), pause_s=0)
        async with posting(post):
            post.put(LETTER)
            await post.settle()
    assert len(server.taken) == 1


async def test_without_the_encryption_that_was_asked_for_nothing_is_sent_or_logged() -> None:
    async with mail_server() as server:
        post = Post(smtp(server, "starttls"), pause_s=0)
        with capture_logs() as logs:
            async with posting(post):
                post.put(LETTER)
                await post.settle()
    assert server.taken == []
    assert [line["event"] for line in logs] == ["mail_failed"] * 3
    assert "Hello" not in str(logs)


async def test_too_many_letters_are_refused_and_told_of() -> None:
    post = Post(NullMailer(), most=2)
    with capture_logs() as logs:
        assert [post.put(LETTER) for _ in range(3)] == [True, True, False]
    assert [line["event"] for line in logs] == ["mail_refused"]


async def test_without_a_mail_server_the_log_has_the_letter() -> None:
    found = mail.find_mailer(
        host=None, port=25, sender="x", security="none", user=None, password=None
    )
    with capture_logs() as logs:
        found.send(LETTER)
    assert logs[0]["event"] == "mail_printed"
    assert "Hello" in logs[0]["text"]


def test_nothing_here_shows_a_secret_in_its_repr() -> None:
    shown = repr(SmtpMailer("h", 1, "s", "tls", "user", "hidden")) + repr(LETTER)
    assert "hidden" not in shown
    assert "Hello" not in shown
    assert os.linesep not in shown
