"""A body that two readers could understand differently is not read at all."""

import json
import time
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bursar.core import strictjson
from bursar.core.errors import Unreadable

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**30), 10**30) | st.text(max_size=20),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4)
    ),
    max_leaves=20,
)


@given(VALUES, st.booleans())
def test_what_is_json_reads_as_json(value: object, ascii_only: bool) -> None:
    body = json.dumps(value, ensure_ascii=ascii_only).encode()
    assert strictjson.loads(body) == value


@pytest.mark.parametrize(
    ("body", "value"),
    [
        (b'{"a": 1.10}', {"a": Decimal("1.10")}),
        (b"1e400", Decimal("1E+400")),
        (b"-0", 0),
        (b"9" * 400, 10**400 - 1),
        (b"0." + b"1" * 398, Decimal("0." + "1" * 398)),
        (b"1e1000", Decimal("1E+1000")),
        (b"-0.0", Decimal("-0.0")),
        (b"9223372036854775808", 2**63),
        (b" [ ] \r\n\t", []),
        (b'"\\ud83d\\ude00"', "\U0001f600"),
        (b'"\\\\ud800"', "\\ud800"),
        (b'"\\\\\\\\ud800 \\ud83D\\uDe00"', "\\\\ud800 \U0001f600"),
        (b'"\\u0000"', "\0"),
        (b'"[[[[{{{{\\"[[[["', '[[[[{{{{"[[[['),
        (b'[{"a":1},{"a":1}]', [{"a": 1}, {"a": 1}]),
        (b'{"a":{"a":1}}', {"a": {"a": 1}}),
    ],
)
def test_numbers_are_exact_and_strings_whole(body: bytes, value: object) -> None:
    found = strictjson.loads(body)
    assert found == value
    assert type(found) is type(value)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b" ",
        b"{",
        b"[1,]",
        b'{"a":1,}',
        b"{a:1}",
        b"{'a':1}",
        b"// comment\n1",
        b"[1] [2]",
        b"1 2",
        b"NaN",
        b"[Infinity]",
        b"-Infinity",
        b"01",
        b"+1",
        b".5",
        b"1.",
        b"0x1",
        b"\xef\xbb\xbf{}",
        "{}".encode("utf-16"),
        "{}".encode("utf-32"),
        b'"\xff"',
        b'"\xed\xa0\x80"',
        b'"\xc0\x80"',
        b'"a\nb"',
        b'"a\x00b"',
        b'"\\x41"',
        b'"\\ud800"',
        b'"\\udc00"',
        b'"\\ude00\\ud83d"',
        b'"\\ud83d\\\\ude00"',
        b'"\\ud83d \\ude00"',
        b'{"\\ud800":1}',
        b"9" * 401,
        b"-" + b"9" * 5000,
        b"0." + b"1" * 399,
        b"0." + b"1" * 5000,
        b"1e99999999999999999999",
        b"1e1001",
        b"1e-1001",
        "\uff11".encode(),
        b"\xa0{}",
        b'{"a":1',
        b'"\\',
    ],
)
def test_what_is_not_json_is_refused(body: bytes) -> None:
    with pytest.raises(Unreadable) as refusal:
        strictjson.loads(body)
    assert refusal.value.code == "invalid_json"


@pytest.mark.parametrize(
    "body",
    [
        b'{"limit":1,"limit":9}',
        b'{"limit":1,"limit":1}',
        b'{"a":1,"\\u0061":2}',
        b'[{"b":{"a":1,"c":2,"a":3}}]',
    ],
)
def test_a_name_that_occurs_twice_is_refused(body: bytes) -> None:
    with pytest.raises(Unreadable) as refusal:
        strictjson.loads(body)
    assert refusal.value.code == "duplicate_key"


def test_nesting_is_bounded_exactly() -> None:
    assert strictjson.loads(b"[" * 32 + b"]" * 32)
    assert strictjson.loads(b'{"a":' * 3 + b"1" + b"}" * 3, max_depth=3) == {"a": {"a": {"a": 1}}}
    assert len(str(strictjson.loads(b"[" + b"[]," * 100 + b"[]]", max_depth=2))) > 100
    assert strictjson.loads(b"[[]," * 31 + b"[]" + b"]" * 31)
    for body in (
        b"[[]," * 32 + b"[]" + b"]" * 32,
        b"[" * 33 + b"]" * 33,
        b'{"a":' * 33 + b"1" + b"}" * 33,
    ):
        with pytest.raises(Unreadable) as refusal:
            strictjson.loads(body)
        assert refusal.value.code == "invalid_json"


# Each of these takes a careless reader seconds, gigabytes or the whole stack.
HOSTILE = {
    "brackets": b"[" * 100_000,
    "objects": b'{"a":' * 20_000,
    "escaped quotes": b"[" * 40 + b'"' + b'\\"' * 50_000,
    "backslashes": b"[" * 40 + b'"' + b"\\" * 100_001,
    "quotes": b"[" * 40 + b'"' * 100_001,
    "closing": b"]" * 100_000 + b"[" * 40,
    "long name": b'{"' + b"k" * 1_000_000 + b'":1,}',
    "long number": b"9" * 1_000_000,
    "same name": b"{" + b'"a":1,' * 10_000 + b'"a":1}',
    "half surrogates": b'["' + b"\\ud800" * 20_000 + b'"]',
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_body_is_refused_soon(name: str) -> None:
    took_s = []
    for _ in range(3):
        start = time.process_time()
        with pytest.raises(Unreadable):
            strictjson.loads(HOSTILE[name])
        took_s.append(time.process_time() - start)
    assert min(took_s) < 0.05


@given(st.binary(max_size=60) | st.text(alphabet='[]{}":,\\u0d8e1.-e ', max_size=60))
def test_reading_ends_in_a_value_or_in_a_refusal(body: bytes | str) -> None:
    raw = body.encode() if isinstance(body, str) else body
    try:
        value = strictjson.loads(raw)
    except Unreadable as error:
        code = error.code
    else:
        code = ""
        json.dumps(value, default=str, ensure_ascii=False).encode()
    assert code in ("", "invalid_json", "duplicate_key")
