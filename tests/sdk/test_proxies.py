"""Proxies that the environment names: used, gone round, and said to be of no use."""

from __future__ import annotations

import asyncio

import pytest

from bursar import ConfigurationError, ConnectionFailed, InvalidAnswer, MissingDependency
from tests.sdk.faces import Face
from tests.sdk.test_failures import HTML, answer, is_a_sentence, listening, saying

BALANCE = answer(b'{"balance":"1.00"}')
NAMES = ("ALL_PROXY", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY")


@pytest.fixture(autouse=True)
def _no_proxies(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever runs the tests may be behind one."""
    for name in NAMES:
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)


@pytest.mark.parametrize("name", ["HTTP_PROXY", "ALL_PROXY"])
async def test_calls_go_through_the_proxy_that_the_environment_names(
    face: Face, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    async with listening(saying(BALANCE)) as proxy:
        monkeypatch.setenv(name, f"http://{proxy}")
        client = face.client("bpk_x", base_url="http://bursar.invalid")
        assert (await face.do(client.billing.balance)).balance == 1


async def test_an_address_of_no_proxy_is_called_itself(
    face: Face, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with listening(saying(BALANCE)) as where:
        monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
        monkeypatch.setenv("NO_PROXY", "127.0.0.1")
        client = face.client("bpk_x", base_url=f"http://{where}", max_retries=0)
        assert (await face.do(client.billing.balance)).balance == 1


async def test_a_tunnel_that_the_proxy_refuses_is_no_connection_and_gets_no_key(
    face: Face, monkeypatch: pytest.MonkeyPatch
) -> None:
    heard: list[bytes] = []

    async def refusing(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(answer(HTML, status="407 Proxy Authentication Required"))
        await writer.drain()
        heard.append(await reader.read())

    async with listening(refusing) as proxy:
        monkeypatch.setenv("HTTPS_PROXY", f"http://{proxy}")
        client = face.client("bpk_secret", base_url="https://bursar.invalid", max_retries=0)
        with pytest.raises(ConnectionFailed) as failed:
            await face.do(client.billing.balance)
    assert is_a_sentence(failed.value)
    assert b"bpk_secret" not in b"".join(heard)


async def test_a_page_of_the_proxy_is_no_answer(
    face: Face, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with listening(saying(answer(HTML))) as proxy:
        monkeypatch.setenv("HTTP_PROXY", f"http://{proxy}")
        client = face.client("bpk_x", base_url="http://bursar.invalid")
        with pytest.raises(InvalidAnswer):
            await face.do(client.api_keys.delete, 1)


async def test_a_proxy_of_socks_says_what_to_install(
    face: Face, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ALL_PROXY", "socks5://127.0.0.1:9")
    monkeypatch.setitem(__import__("sys").modules, "socksio", None)
    client = face.client("bpk_x", base_url="http://bursar.invalid")
    with pytest.raises(MissingDependency, match=r"httpx2\[socks\].*ALL_PROXY") as failed:
        await face.do(client.billing.balance)
    assert is_a_sentence(failed.value)


@pytest.mark.parametrize("proxy", ["nonsense://x", "http://127.0.0.1:nonsense"])
async def test_a_proxy_that_cannot_be_one_is_said_to_be_so(
    face: Face, monkeypatch: pytest.MonkeyPatch, proxy: str
) -> None:
    monkeypatch.setenv("ALL_PROXY", proxy)
    client = face.client("bpk_x", base_url="http://bursar.invalid", max_retries=0)
    with pytest.raises((ConfigurationError, ConnectionFailed)) as failed:
        await face.do(client.billing.balance)
    assert is_a_sentence(failed.value)
