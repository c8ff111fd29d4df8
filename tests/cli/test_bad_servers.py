"""What can go wrong on the way to a server: one sentence, an exit code, and never a traceback."""

from __future__ import annotations

import json
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from tests.authority import DAY, NOW, Authority
from tests.cli.conftest import Bursar, Done
from tests.live import Installation
from tests.sdk.test_failures import CHUNK, HTML, SECRET, SSE_HEAD, answer

Talk = Callable[[socket.socket], None]

# Serving takes its time where other tests run.
pytestmark = pytest.mark.timeout(240)


@contextmanager
def listening(talk: Talk, *, tls: ssl.SSLContext | None = None) -> Iterator[str]:
    """A server that does as it likes with each connection; its address."""
    scheme = "http" if tls is None else "https"
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def run() -> None:
            while True:
                try:
                    peer, _ = listener.accept()
                except OSError:
                    return
                with peer, suppress(OSError):
                    secured = peer if tls is None else tls.wrap_socket(peer, server_side=True)
                    with secured:
                        secured.recv(65_536)
                        talk(secured)

        thread = threading.Thread(target=run, daemon=True)
        thread.start()
        yield f"{scheme}://127.0.0.1:{listener.getsockname()[1]}"
        listener.shutdown(socket.SHUT_RDWR)
    thread.join()


def saying(said: bytes) -> Talk:
    """Say this and hang up."""
    return lambda peer: peer.sendall(said)


def is_a_sentence(done: Done, code: int) -> bool:
    """Whether it ended with this exit code and said why in a line, with advice in another."""
    lines = done.stderr.splitlines()
    words = lines[0].removeprefix("bursar: ")
    return done.code == code and len(lines) <= 2 and len(words) < 400 and SECRET not in done.stderr


@pytest.fixture(autouse=True)
def _key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BURSAR_API_KEY", SECRET)


TOO_LONG = answer(b"x" * 10_000_000, status="500 No", head="content-type: text/plain")


@pytest.mark.parametrize(
    ("said", "exit_code", "code"),
    [
        (answer(HTML, head="content-type: text/html"), 5, "invalid_answer"),
        (answer(b'{"balance": }'), 5, "invalid_answer"),
        (answer(b'{"balance": "much"}'), 5, "invalid_answer"),
        (answer(b"{}"), 5, "invalid_answer"),
        (
            answer(HTML, status="302 Found", head="location: http://127.0.0.1:1/"),
            5,
            "invalid_answer",
        ),
        (answer(HTML, status="404 Not Found"), 3, "refused"),
        (answer(HTML, status="403 No"), 4, "refused"),
        (TOO_LONG, 5, "refused"),
        (b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\n{", 5, "connection_failed"),
        (b"SSH-2.0-OpenSSH_9.9\r\n", 5, "connection_failed"),
        (b"", 5, "connection_failed"),
    ],
    ids=lambda value: value[:20].decode("latin-1") if isinstance(value, bytes) else str(value),
)
def test_what_no_bursar_would_say_is_a_sentence(
    bursar: Bursar, said: bytes, exit_code: int, code: str
) -> None:
    with listening(saying(said)) as url:
        done = bursar("balance", "--url", url, "--json")
    assert is_a_sentence(done, exit_code), done.stderr
    error = json.loads(done.stderr)["error"]
    assert error["code"] == code
    assert error["message"][-1] in ".?"
    assert ("request_id" in error) == (b"req_1" in said)


def test_nobody_there_is_a_sentence(bursar: Bursar) -> None:
    for url in ("http://127.0.0.1:1", "https://127.0.0.1:1"):
        done = bursar("balance", "--url", url)
        assert is_a_sentence(done, 5), done.stderr
        assert "check that it runs" in done.stderr


def test_an_address_that_is_none_is_a_mistake(bursar: Bursar) -> None:
    for url in ("nowhere", "ftp://a", "http://", "http://user:hunter2@a", "http://a:99999"):
        done = bursar("balance", "--url", url)
        assert is_a_sentence(done, 2), (url, done.stderr)
        assert "hunter2" not in done.stderr


def test_a_server_that_cannot_prove_who_it_is_gets_nothing(bursar: Bursar, tmp_path: Path) -> None:
    tls = Authority().serve(tmp_path, host="127.0.0.1", until=NOW + DAY)
    asked: list[bool] = []
    with listening(lambda _: asked.append(True), tls=tls) as url:
        done = bursar("balance", "--url", url)
    assert is_a_sentence(done, 5), done.stderr
    assert "certificate" in done.stderr
    assert asked == []


def test_a_stream_that_is_cut_is_said_to_be(bursar: Bursar) -> None:
    with listening(saying(SSE_HEAD + b"\r\n" + CHUNK)) as url:
        done = bursar("chat", "hello", "--url", url)
    assert done.stdout == "hi"
    assert is_a_sentence(done, 5), done.stderr
    assert "(req_7)" in done.stderr


def test_a_clock_that_is_wrong_here_does_no_harm(
    owner: Installation, bursar: Bursar, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BURSAR_API_KEY", owner.secrets.provisioning_key)
    import time_machine

    for moment in ("2020-01-01T00:00:00Z", "2040-01-01T00:00:00Z"):
        with time_machine.travel(moment, tick=True):
            assert bursar("balance", "--url", owner.url).code == 0
            assert bursar("activity", "--url", owner.url).code == 0


def test_a_profile_that_cannot_be_used_is_a_sentence(
    bursar: Bursar, monkeypatch: pytest.MonkeyPatch
) -> None:
    from bursar.cli.places import profiles

    monkeypatch.delenv("BURSAR_API_KEY")
    path = profiles.path()
    path.parent.mkdir(parents=True)
    assert is_a_sentence(bursar("balance", "--profile", "nobody"), 2)
    for text, mode in (("[default\n", 0o600), ("[default]\nkey = 1\n", 0o600), ("", 0o644)):
        path.write_text(text or '[default]\napi_key = "x"\n')
        path.chmod(mode)
        done = bursar("balance")
        assert is_a_sentence(done, 2), done.stderr
        assert str(path) in done.stderr
    path.chmod(0o600)
    path.write_bytes(b"\xff\xfe")
    assert is_a_sentence(bursar("balance"), 2)
