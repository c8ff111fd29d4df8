"""What another program answers is never taken for a success, and no value ends in a raw error."""

from __future__ import annotations

from typing import Any

import pytest

from bursar import (
    Bursar,
    BursarError,
    ConfigurationError,
    InvalidAnswer,
    InvalidArgument,
    ServerFailed,
)
from bursar.sdk import values
from bursar.sdk.calls import Answer
from bursar.sdk.configuration import clean_url
from bursar.sdk.flow import refusal
from bursar.sdk.resources.models import Model
from bursar.sdk.results import read_page
from tests.sdk.faces import Face
from tests.sdk.test_failures import HTML, answer, is_a_sentence, listening, saying
from tests.sdk.test_routes import CALLS, described

FOREIGN = (HTML, b"", b"{}", b"[]", b"null", b"1", b'"ok"', b'{"error":"no"}')
PAGE = answer(HTML, head="content-type: text/html")


@pytest.mark.parametrize("name", CALLS)
def test_no_call_takes_another_programs_answer_for_its_own(name: str) -> None:
    call = described(CALLS[name], is_full=False)
    for body in FOREIGN:
        with pytest.raises(InvalidAnswer, match=r"base URL|versions") as refused:
            call.read(Answer(200, {"content-type": "text/html"}, body))
        assert is_a_sentence(refused.value)


async def test_a_page_of_a_proxy_is_no_deletion_and_no_change(face: Face) -> None:
    async with listening(saying(PAGE)) as where:
        client = face.client("bpk_x", base_url=f"http://{where}")
        for call, arguments in (
            (client.api_keys.delete, (1,)),
            (client.users.remove, (1,)),
            (client.auth.revoke, ("brt_x",)),
            (client.auth.request_password_reset, ("a@b.example",)),
        ):
            do: Any = call
            with pytest.raises(InvalidAnswer, match="base URL") as refused:
                await face.do(do, *arguments)
            assert (refused.value.status, refused.value.request_id) == (200, "req_1")
        with pytest.raises(InvalidAnswer):
            await face.do(client.limits.remove, scope="account", resource="cost", window="day")
        with pytest.raises(InvalidAnswer):
            await face.do(client.auth.change_password, "old", new_password="new")


async def test_what_is_done_has_no_answer_at_all(face: Face) -> None:
    said = b"HTTP/1.1 204 No Content\r\nconnection: close\r\n\r\n"
    async with listening(saying(said)) as where:
        client = face.client("bpk_x", base_url=f"http://{where}")
        assert await face.do(client.api_keys.delete, 1) is None


@pytest.mark.parametrize(
    "number", ["1e99999999999999999999", "1e999999999", "-1e-99999", "9" * 9999]
)
def test_a_number_out_of_all_range_is_no_json(number: str) -> None:
    with pytest.raises(ValueError, match=r"range|digits"):
        values.decode(
            f'{{"balance": {number}.0}}'.encode()
            if "e" not in number
            else f'{{"balance": {number}}}'.encode()
        )
    failed = refusal(
        Answer(500, {}, b'{"error":{"message":"no","left":%b}}' % b"1e99999999999999999999")
    )
    assert isinstance(failed, ServerFailed)


def test_a_cursor_that_is_no_text_is_no_answer() -> None:
    with pytest.raises(InvalidAnswer, match="cursor"):
        read_page(Model, "models")(Answer(200, {}, b'{"models":[],"next_cursor":{}}'))


# ── What cannot be sent ─────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("host", ["a" * 64 + ".example", "a..b", "ü" * 60 + ".example", "." * 300])
def test_a_host_that_no_name_can_be_is_no_base_url(host: str) -> None:
    with pytest.raises(ConfigurationError, match="base URL"):
        Bursar("bpk_x", base_url=f"https://{host}")


@pytest.mark.parametrize(
    "host", ["[::1]:8080", "bücher.example", "a" * 63 + ".example", "127.0.0.1"]
)
def test_a_host_that_can_be_one_is(host: str) -> None:
    assert clean_url(f"http://{host}/v1/") == f"http://{host}"


async def test_text_that_cannot_be_sent_is_refused_before_anything_is(face: Face) -> None:
    client = face.client("bpk_x", base_url="http://127.0.0.1:9", max_retries=0)
    half = "\ud800"
    failures: list[BursarError] = []
    for key in ("schlüssel", "a\r\nx: y", half):
        with pytest.raises(InvalidArgument, match="idempotency_key") as refused:
            await face.do(client.api_keys.create, "n", idempotency_key=key)
        failures.append(refused.value)
    with pytest.raises(InvalidArgument, match="half of a character") as refused:
        await face.all(client.api_keys.list(q=half))
    failures.append(refused.value)
    with pytest.raises(InvalidArgument) as refused:
        await face.do(client.models.get, half)
    failures.append(refused.value)
    with pytest.raises(InvalidArgument) as refused:
        await face.do(client.chat.complete, model="m", messages=[], labels={"a": half})
    assert all(map(is_a_sentence, [*failures, refused.value]))
