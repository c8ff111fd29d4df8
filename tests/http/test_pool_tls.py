"""An upstream that cannot prove who it is gets no request."""

import asyncio
import datetime as dt
import ssl
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from bursar.gateway.upstreams.pool import KeepAlivePool
from bursar.gateway.upstreams.pool_aiohttp import AiohttpPool
from bursar.gateway.upstreams.port import Timeouts, UpstreamError
from tests.authority import DAY, NOW, Authority
from tests.upstream_double import ScriptedUpstream, listening

CLIENTS = pytest.mark.parametrize("client_class", [KeepAlivePool, AiohttpPool])
ClientClass = type[KeepAlivePool] | type[AiohttpPool]


@pytest.fixture(scope="module")
def authority() -> Authority:
    return Authority()


@pytest_asyncio.fixture
async def up(authority: Authority, tmp_path: Path) -> AsyncIterator[ScriptedUpstream]:
    tls = authority.serve(tmp_path, host="127.0.0.1", until=NOW + DAY)
    async with ScriptedUpstream(tls=tls) as upstream:
        yield upstream


async def kind_of_failure(
    client_class: ClientClass, base_url: str, trust: ssl.SSLContext | None
) -> str:
    client = client_class(base_url, tls=trust, timeouts=Timeouts(connect_s=0.3))
    with pytest.raises(UpstreamError) as caught:
        await client.send(b"POST", b"/chat/completions", [(b"authorization", b"Bearer k")], b"{}")
    assert client.in_use == 0
    await client.close()
    assert caught.value.request_sent is False
    return caught.value.kind


@CLIENTS
async def test_an_upstream_of_a_trusted_authority_is_called_on_one_connection(
    up: ScriptedUpstream, authority: Authority, client_class: ClientClass
) -> None:
    client = client_class(up.base_url, tls=authority.trust())
    for stream in (b"false", b"true", b"false"):
        body = b'{"model":"m","stream":%b,"messages":[]}' % stream
        response = await client.send(b"POST", b"/chat/completions", [], body)
        assert b"w4" in await response.read()
    await client.close()
    assert (up.connections, client.in_use) == (1, 0)


@CLIENTS
async def test_an_authority_that_the_system_does_not_know_is_refused(
    up: ScriptedUpstream, client_class: ClientClass
) -> None:
    assert await kind_of_failure(client_class, up.base_url, None) == "tls"
    assert up.sales == []


@CLIENTS
@pytest.mark.parametrize(
    ("host", "until"), [("127.0.0.1", NOW - DAY), ("127.0.0.2", NOW + DAY), ("api.test", NOW + DAY)]
)
async def test_an_expired_certificate_or_one_for_another_host_is_refused(
    authority: Authority, tmp_path: Path, client_class: ClientClass, host: str, until: dt.datetime
) -> None:
    tls = authority.serve(tmp_path, host=host, until=until)
    async with ScriptedUpstream(tls=tls) as upstream:
        kind = await kind_of_failure(client_class, upstream.base_url, authority.trust())
        assert (kind, upstream.sales) == ("tls", [])


@CLIENTS
async def test_a_handshake_that_hangs_is_given_up(
    authority: Authority, client_class: ClientClass
) -> None:
    async def say_nothing(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(-1)

    async with listening(say_nothing) as port:
        kind = await kind_of_failure(client_class, f"https://127.0.0.1:{port}", authority.trust())
    assert kind == "timeout_connect"


@CLIENTS
async def test_an_upstream_that_does_not_speak_tls_is_refused(
    authority: Authority, client_class: ClientClass
) -> None:
    async with ScriptedUpstream() as plain:
        base_url = plain.base_url.replace("http:", "https:")
        assert await kind_of_failure(client_class, base_url, authority.trust()) in (
            "tls",
            "connect",
            "timeout_connect",
        )
