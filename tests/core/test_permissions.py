"""Patterns, networks and labels: what each takes, what it refuses, and when it matches."""

from __future__ import annotations

import re
import time
from ipaddress import ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bursar.core import permissions
from bursar.core.errors import Invalid
from bursar.core.permissions import Rights
from bursar.gateway.wire import calls

LETTERS = st.text(alphabet="ab/.-", max_size=12)
PATTERNS = st.text(alphabet="ab/.-*?", min_size=1, max_size=12)
NOT_PLAIN = ("", "a b", "a\n", "a\x00", "gpt-4\u200b", "a\tb")
NO_NETWORKS = """
    localhost 1.2.3 256.1.1.1 010.0.0.1 3405803783 0x7f000001 \u0661.2.3.4 203.0.113.7:80 [::1]
    203.0.113.7/24 2001:db8::1/32 ::ffff:203.0.113.7/120 203.0.113.0/33 ::/129 203.0.113.0/-1
    203.0.113.0/024 1.2.3.4/ 1.2.3.4/\u0662\u0664 203.0.113.0/24/24 203.0.113.0/255.255.255.0
    203.0.113.0/0.0.0.255 fe80::1%eth0 fe80::/10%1
"""


def refusal(call: object, *arguments: object) -> str:
    with pytest.raises(Invalid) as raised:
        call(*arguments)  # type: ignore[operator]
    return raised.value.code


@given(pattern=PATTERNS, model=LETTERS)
def test_a_pattern_matches_as_its_expression_would(pattern: str, model: str) -> None:
    parts = {"*": ".*", "?": "."}
    expression = "".join(parts.get(letter) or re.escape(letter) for letter in pattern)
    expected = re.fullmatch(expression, model) is not None
    assert permissions.matches(pattern, model) is expected


@pytest.mark.parametrize(
    ("pattern", "model", "expected"),
    [
        ("gpt-4o", "gpt-4o", True),
        ("gpt-4o", "gpt-4o-mini", False),
        ("gpt-4o", "GPT-4o", False),
        ("gpt-4o", "xgpt-4o", False),
        ("gpt-4*", "gpt-4", True),
        ("gpt-4*", "gpt-4o-mini", True),
        ("gpt-4?", "gpt-4", False),
        ("*", "", True),
        ("?", "", False),
        ("*mini", "gpt-4o-mini", True),
        ("*mini", "gpt-4o-mini-2", False),
        ("a**b", "ab", True),
        ("sandbox/*", "sandbox/echo", True),
        ("gpt.4", "gpt-4", False),
    ],
)
def test_only_asterisk_and_question_mark_are_wild(pattern: str, model: str, expected: bool) -> None:
    assert permissions.matches(pattern, model) is expected
    assert permissions.any_matches(["nothing", pattern], model) is expected


def test_no_pattern_is_slow() -> None:
    pattern = permissions.clean_pattern("*".join("a" * 30 for _ in range(8)) + "b")
    began = time.process_time()
    for _ in range(100):
        assert not permissions.matches(pattern, "a" * 255)
    # A search that goes back and forth takes minutes for one of these.
    assert time.process_time() - began < 2


@given(own=PATTERNS, given_=PATTERNS, model=LETTERS)
def test_a_right_that_is_passed_on_never_grows(own: str, given_: str, model: str) -> None:
    excess = permissions.find_excess(Rights(models=(own,)), Rights(models=(given_,)))
    if excess is None and permissions.matches(given_, model):
        assert permissions.matches(own, model)


@pytest.mark.parametrize(
    ("own", "given_", "excess"),
    [
        (Rights(), Rights(), None),
        (Rights(), Rights(models=("a",), expires_ms=5, environment="test"), None),
        (Rights(models=("gpt-*",)), Rights(models=("gpt-4*", "gpt-5")), None),
        (Rights(models=("gpt-?",)), Rights(models=("gpt-?",)), None),
        (Rights(models=("gpt-?",)), Rights(models=("gpt-*",)), "models"),
        (Rights(models=("gpt-*",)), Rights(models=("gpt-4", "*")), "models"),
        (Rights(models=("gpt-*",)), Rights(), "models"),
        (Rights(endpoints=("embeddings",)), Rights(endpoints=("embeddings",)), None),
        (Rights(endpoints=("embeddings",)), Rights(endpoints=("chat.completions",)), "endpoints"),
        (Rights(endpoints=("embeddings",)), Rights(), "endpoints"),
        (Rights(environment="test"), Rights(), "environment"),
        (Rights(environment="test"), Rights(environment="test"), None),
        (Rights(project_id=1), Rights(project_id=1), None),
        (Rights(project_id=1), Rights(project_id=2), "project_id"),
        (Rights(project_id=1), Rights(), "project_id"),
        (Rights(expires_ms=5), Rights(expires_ms=5), None),
        (Rights(expires_ms=5), Rights(expires_ms=6), "expires_at"),
        (Rights(expires_ms=5), Rights(), "expires_at"),
    ],
)
def test_what_goes_beyond_own_rights_is_named(
    own: Rights, given_: Rights, excess: str | None
) -> None:
    assert permissions.find_excess(own, given_) == excess


@pytest.mark.parametrize(
    "text",
    [*r"gpt-[45] ^gpt gpt$ a|b (a) a+ a\d {a} é *********".split(), *NOT_PLAIN, "a" * 256],
)
def test_a_pattern_is_no_expression_and_no_riddle(text: str) -> None:
    assert refusal(permissions.clean_pattern, text) == "invalid_pattern"


@pytest.mark.parametrize("text", ["gpt-4o", "*", "a" * 255, "*a*a*a*a*a*a*a*", "meta/llama:free"])
def test_a_pattern_is_kept_as_it_was_given(text: str) -> None:
    assert permissions.clean_pattern(text) == text


def test_the_endpoints_that_a_list_can_name_are_those_that_are_served() -> None:
    assert {calls.CHAT.name, calls.EMBEDDINGS.name} == set(permissions.ENDPOINTS)
    for name in permissions.ENDPOINTS:
        assert permissions.clean_endpoint(name) == name
    for name in ("", "chat", "*", "Embeddings", "/v1/embeddings"):
        assert refusal(permissions.clean_endpoint, name) == "invalid_endpoint"


@pytest.mark.parametrize(
    ("text", "written"),
    [
        ("203.0.113.7", "203.0.113.7/32"),
        ("203.0.113.0/24", "203.0.113.0/24"),
        ("0.0.0.0/0", "0.0.0.0/0"),
        ("2001:DB8::/32", "2001:db8::/32"),
        ("2001:db8:0:0::1", "2001:db8::1/128"),
        ("::/0", "::/0"),
        ("::ffff:203.0.113.7", "203.0.113.7/32"),
        ("::ffff:cb00:7107", "203.0.113.7/32"),
        ("::ffff:203.0.113.0/120", "203.0.113.0/24"),
        ("::ffff:0:0/96", "0.0.0.0/0"),
    ],
)
def test_a_network_has_one_form(text: str, written: str) -> None:
    assert permissions.clean_network(text) == written
    assert permissions.clean_network(written) == written


@pytest.mark.parametrize("text", ["", " 203.0.113.7", "203.0.113.7\n", *NO_NETWORKS.split()])
def test_what_is_no_network_is_refused(text: str) -> None:
    assert refusal(permissions.clean_network, text) == "invalid_network"


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        ("203.0.113.7", True),
        ("::ffff:203.0.113.7", True),
        ("203.0.114.7", False),
        ("2001:db8::5", True),
        ("2001:db9::5", False),
        ("::cb00:7107", False),
        ("fe80::1%eth0", False),
        ("2001:db8::5%1", False),
        ("unknown", False),
        ("", False),
    ],
)
def test_an_address_is_in_its_networks_however_it_is_written(address: str, expected: bool) -> None:
    networks = permissions.parse_networks(["203.0.113.0/24", "2001:db8::/32"])
    assert permissions.contains(networks, permissions.parse_address(address)) is expected


PROXIES = permissions.parse_networks(["10.0.0.0/8", "fd00::/8"])


@pytest.mark.parametrize(
    ("peer", "forwarded", "expected"),
    [
        # Nobody's word counts but a trusted proxy's.
        ("198.51.100.1", [b"203.0.113.7"], "198.51.100.1"),
        ("198.51.100.1", [], "198.51.100.1"),
        ("10.0.0.1", [], "10.0.0.1"),
        ("10.0.0.1", [b"203.0.113.7"], "203.0.113.7"),
        ("::ffff:10.0.0.1", [b"203.0.113.7"], "203.0.113.7"),
        ("fd00::1", [b"2001:db8::5"], "2001:db8::5"),
        # What stands before the last untrusted address is made up by its sender.
        ("10.0.0.1", [b"1.1.1.1, 203.0.113.7"], "203.0.113.7"),
        ("10.0.0.1", [b"1.1.1.1, 203.0.113.7,10.9.9.9"], "203.0.113.7"),
        ("10.0.0.1", [b"1.1.1.1", b"203.0.113.7"], "203.0.113.7"),
        ("10.0.0.1", [b"rubbish, 203.0.113.7"], "203.0.113.7"),
        ("10.0.0.1", [b"::ffff:203.0.113.7"], "203.0.113.7"),
        ("10.0.0.1", [b"10.0.0.9, 10.0.0.8"], "10.0.0.9"),
        # A malformed word from a trusted proxy is nobody's address.
        ("10.0.0.1", [b"203.0.113.7, rubbish"], None),
        ("10.0.0.1", [b"203.0.113.7, 10.0.0.2, "], None),
        ("10.0.0.1", [b""], None),
        ("10.0.0.1", [b"203.0.113.7:4711"], None),
        ("10.0.0.1", [b"fe80::1%eth0"], None),
        ("10.0.0.1", [b"\xff\xfe"], None),
        ("", [b"203.0.113.7"], None),
        (None, [b"203.0.113.7"], None),
    ],
)
def test_a_client_cannot_say_where_it_comes_from(
    peer: str | None, forwarded: list[bytes], expected: str | None
) -> None:
    found = permissions.client_address(peer, forwarded, PROXIES)
    assert found == (None if expected is None else ip_address(expected))


def test_labels_have_one_text() -> None:
    labels = permissions.clean_labels({"team": "Suche ü", "feature": "a=b,c"})
    assert list(labels) == ["feature", "team"]
    text = permissions.encode_labels({"team": "Suche ü", "feature": "a=b,c"})
    assert text == '{"feature":"a=b,c","team":"Suche \\u00fc"}'


@pytest.mark.parametrize(
    "labels",
    [
        {"": "x"},
        {"Team": "x"},
        {"a b": "x"},
        {"a" * 65: "x"},
        {"a=b": "x"},
        {"é": "x"},
        {"team": ""},
        {"team": "  "},
        {"team": "x" * 256},
        {"team": "a\nb"},
        {"team": "a\x00"},
        {"team": "a\u202eb"},
        {"team": "\ud800"},
        {f"name{number}": "x" for number in range(17)},
    ],
)
def test_a_label_that_breaks_a_rule_is_refused(labels: dict[str, str]) -> None:
    assert refusal(permissions.clean_labels, labels) == "invalid_label"
