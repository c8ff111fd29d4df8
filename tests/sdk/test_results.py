"""Results: frozen, typed, open to newer servers, readable, and silent about secrets."""

from __future__ import annotations

import sys
from datetime import UTC, datetime
from decimal import Decimal

import pandas
import pytest
from pydantic import ValidationError

from bursar import InvalidAnswer, MissingDependency
from bursar.sdk import results, values
from bursar.sdk.calls import Answer, Call, Page
from bursar.sdk.frames import Listing
from bursar.sdk.pages import AsyncPaged, Paged
from bursar.sdk.resources.api_keys import ApiKey, NewApiKey
from bursar.sdk.resources.billing import Balance
from bursar.sdk.resources.limits import Limit
from bursar.sdk.resources.people.auth import RecoveryCodes
from bursar.sdk.resources.usage import Activity

SECRET = "bsk_" + "Ab3" * 12
KEY = (
    b'{"id":4,"name":"laptop","created_at":"2026-11-21T02:48:50Z","expires_at":null,'
    b'"is_enabled":true,"credit_limit":0.000000001%b}'
)
ACTIVITY = b"""{"period_days": 2, "as_of": "2026-11-21T02:48:50.087Z",
  "total_stats": {"total_requests": 2, "total_cost": "0.0000055", "total_input_tokens": 3,
                  "total_output_tokens": 13},
  "daily_stats": [{"date": "2026-11-21", "total_requests": 2, "total_cost": "0.0000055",
                   "total_input_tokens": 3, "total_output_tokens": 13},
                  {"date": "2026-11-20", "total_requests": 0, "total_cost": "0.00",
                   "total_input_tokens": 0, "total_output_tokens": 0}],
  "top_models": [], "api_key_usage": []}"""


def answer(body: bytes) -> Answer:
    """A success with this body."""
    headers = {"x-request-id": "req_1", "content-type": "application/json"}
    return Answer(200, headers, body)


def key(extra: bytes = b"") -> ApiKey:
    """A key as the server's first version had it, and what a later one adds."""
    return results.read(ApiKey)(answer(KEY % extra))


def new_key() -> NewApiKey:
    """A key with its secret."""
    extra = b',"key":"%b","message":"Store it."' % SECRET.encode()
    return results.read(NewApiKey)(answer(KEY % extra))


def test_values_are_typed_and_exact() -> None:
    found = key()
    assert found.credit_limit == Decimal("0.000000001")
    assert found.created_at == datetime(2026, 11, 21, 2, 48, 50, tzinfo=UTC)
    assert (found.id, found.expires_at, found.is_enabled) == (4, None, True)


def test_fields_that_a_newer_server_adds_are_kept() -> None:
    found = key(b',"colour":"red","size":{"wide":1.10}')
    assert found.fields()["colour"] == "red"
    assert found.model_extra == {"colour": "red", "size": {"wide": Decimal("1.10")}}
    assert "colour='red'" in repr(found)


def test_results_do_not_change() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        key().name = "other"


@pytest.mark.parametrize(
    "body", [b"{}", b"[]", b"null", b'{"balance": "ten"}', b'{"balance": null}', b'{"balance": []}']
)
def test_an_answer_of_another_form_says_so(body: bytes) -> None:
    with pytest.raises(InvalidAnswer, match="not a Balance") as refused:
        results.read(Balance)(answer(body))
    assert refused.value.request_id == "req_1"


@pytest.mark.parametrize("body", [b"{}", b"[]", b'{"keys": {}}', b'{"keys": null}'])
def test_an_answer_without_its_list_says_so(body: bytes) -> None:
    for read in (results.read_list(ApiKey, "keys"), results.read_page(ApiKey, "keys")):
        with pytest.raises(InvalidAnswer, match="no list of keys"):
            read(answer(body))


def test_a_moment_without_a_time_zone_is_none() -> None:
    body = (KEY % b"").replace(b"50Z", b"50")
    with pytest.raises(InvalidAnswer, match="created_at"):
        results.read(ApiKey)(answer(body))


def test_what_people_see_is_readable() -> None:
    assert repr(results.read(Balance)(answer(b'{"balance":"99.9999945"}'))) == (
        "Balance(balance=99.9999945)"
    )
    shown = repr(key())
    assert "credit_limit=0.000000001" in shown
    assert "created_at=2026-11-21T02:48:50Z" in shown
    assert str(key()) == shown
    assert repr(Listing([key()])) == f"[\n  {shown},\n]"
    assert repr(Listing()) == "[]"


def test_a_secret_is_there_and_is_shown_nowhere() -> None:
    made = new_key()
    assert made.key == SECRET
    both = Listing([made, made])
    unknown = key(b',"other":"%b"' % SECRET.encode())
    shown = [repr(made), str(made), repr(both), made._repr_html_(), both._repr_html_()]
    assert SECRET not in "".join([*shown, repr(unknown), unknown._repr_html_()])
    assert "bsk_…Ab3Ab3" in repr(made)


def test_notebook_tables_escape_what_others_wrote() -> None:
    found = key(b',"note":"<script>alert(1)</script>"')
    for table in (found._repr_html_(), Listing([found])._repr_html_()):
        assert "<script>" not in table
        assert "&lt;script&gt;" in table


def test_tables_have_a_row_an_item_and_exact_money() -> None:
    table = Listing([key(), key()]).to_frame()
    assert isinstance(table, pandas.DataFrame)
    assert list(table["credit_limit"]) == [Decimal("0.000000001")] * 2
    assert list(table["name"]) == ["laptop", "laptop"]
    assert len(key().to_frame()) == 1


def test_an_empty_table_has_the_columns_of_its_kind() -> None:
    empty = answer(b'{"keys":[],"next_cursor":null}')
    page = results.read_page(ApiKey, "keys")(empty)
    paged = Paged(lambda call: (page, empty), Call("GET", "/v1/x", lambda _: page))
    named = list(key().to_frame().columns)
    listed = results.read_list(ApiKey, "keys")(empty)
    for table in (page.to_frame(), listed.to_frame(), paged.to_frame()):
        assert list(table.columns) == named
        assert len(table) == 0
    assert "<th>credit_limit</th>" in listed._repr_html_()
    assert list(Listing().to_frame().columns) == []
    empty_days = ACTIVITY.replace(
        ACTIVITY[ACTIVITY.index(b'"daily') : ACTIVITY.index(b'"top')], b""
    )
    report = results.read(Activity)(answer(empty_days.replace(b'"top', b'"daily_stats": [], "top')))
    assert list(report.to_frame().columns)[-1] == "date"


def test_a_frame_shows_no_secret_and_its_result_still_has_it() -> None:
    made = new_key()
    codes = RecoveryCodes.model_validate({"recovery_codes": ["aaaa-bbbb-cccc-dddd"]})
    other = key(b',"more":{"keys":["%b"]},"other":"%b"' % ((SECRET.encode(),) * 2))
    for table in (made.to_frame(), Listing([made, made]).to_frame(), other.to_frame()):
        shown = [table._repr_html_(), table.to_string(), table.to_csv(), repr(table)]
        assert SECRET not in "".join(
            [*shown, table.to_json(default_handler=str, date_format="iso")]
        )
    assert list(made.to_frame()["key"]) == ["bsk_…Ab3Ab3"]
    assert "aaaa" not in codes.to_frame().to_string()
    assert made.key == SECRET


def test_notebooks_show_pages_and_reports_as_tables() -> None:
    found = answer(b'{"keys":[' + KEY % b"" + b'],"next_cursor":"more"}')
    page = results.read_page(ApiKey, "keys")(found)
    paged = Paged(lambda call: (page, found), Call("GET", "/v1/x", lambda _: page))
    assert "<td>laptop</td>" in page._repr_html_()
    assert "<td>laptop</td>" in paged._repr_html_()
    assert ".all()" in paged._repr_html_()

    async def run(call: Call[Page[ApiKey]]) -> tuple[Page[ApiKey], Answer]:
        raise AssertionError

    later = AsyncPaged(run, Call("GET", "/v1/x", lambda _: page))
    assert "&lt;pages of /v1/x: async for" in later._repr_html_()
    report = results.read(Activity)(answer(ACTIVITY))._repr_html_()
    assert "<td>total_stats_total_cost</td><td>0.0000055</td>" in report
    assert "<p>daily_stats</p><table>" in report
    assert "<td>2026-11-20</td>" in report
    assert "Day(" not in report


def test_a_report_is_a_table_of_its_days() -> None:
    report = results.read(Activity)(answer(ACTIVITY))
    table = report.to_frame()
    assert [str(day) for day in table["date"]] == ["2026-11-21", "2026-11-20"]
    assert sum(table["total_cost"]) == report.total_stats.total_cost == Decimal("0.0000055")
    # As one row, what lies within has the names of both.
    assert "total_stats_total_cost" in values_of(report)


def values_of(report: Activity) -> dict[str, object]:
    """The report as one row."""
    from bursar.sdk import frames

    return frames.row(report)


def test_amounts_are_decimals_for_money_and_whole_numbers_otherwise() -> None:
    body = (
        b'{"name":"n","scope":"account","resource":"%b","unit":"u","window":"day","model":null,'
        b'"limit":%b,"used":%b,"leased":%b,"left":null,"resets_at":null}'
    )
    cost = results.read(Limit)(answer(body % (b"cost", b'"5.00"', b'"0.10"', b'"0.00"')))
    assert (cost.limit, cost.used) == (Decimal(5), Decimal("0.10"))
    calls = results.read(Limit)(answer(body % (b"requests", b"5", b"1", b"0")))
    assert (type(calls.limit), type(calls.used)) == (int, int)


def test_without_pandas_the_sentence_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(MissingDependency, match=r"pip install 'bursar\[pandas\]'"):
        key().to_frame()


def test_unset_is_one_value() -> None:
    assert values.Unset("UNSET") is values.UNSET
