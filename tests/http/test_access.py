"""What a key may reach: addresses, endpoints, labels and models, each refused in its turn."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import pytest

from bursar.core import permissions
from bursar.core.errors import BursarError, Forbidden, Unreadable
from bursar.gateway.access import labels
from bursar.gateway.access.rights import Access
from bursar.gateway.asgi import Message
from bursar.gateway.caller import Caller, read_headers
from bursar.gateway.routing import Route, Upstream
from bursar.gateway.upstreams.sandbox import Sandbox
from bursar.gateway.wire.calls import CHAT, EMBEDDINGS, Endpoint
from bursar.store.credentials import CredentialRow
from bursar.worker.keyring import Credential

FREE: dict[str, Any] = {
    "environment": "live",
    "labels": {},
    "label_names": None,
    "models": None,
    "endpoints": None,
    "networks": None,
}


def credential(**fields: Any) -> Credential:
    """A key with these restrictions and no limits."""
    row = CredentialRow(
        key_id=3,
        account_id=7,
        user_id=None,
        project_id=None,
        kind="inference",
        name="test",
        is_enabled=True,
        expires_ms=None,
        is_deleted=False,
        account_status="active",
        time_zone="UTC",
        allowances=(),
        **{**FREE, **fields},
    )
    return Credential(row, b"digest", ())


def caller(peer: str | None = "192.0.2.1", *forwarded: str) -> Caller:
    """Somebody at this address, with these `x-forwarded-for` headers."""

    async def receive() -> Message:
        return {}

    async def send(_: Message) -> None:
        return None

    headers = [(b"x-forwarded-for", value.encode("latin-1")) for value in forwarded]
    client = None if peer is None else (peer, 40_000)
    return Caller({"headers": headers, "client": client}, receive, send)


def enter(
    key: Credential,
    who: Caller | None = None,
    *,
    endpoint: Endpoint = CHAT,
    asked: Mapping[str, str] | None = None,
    trusted: tuple[str, ...] = (),
) -> str | None:
    """What the door says."""
    access = Access(permissions.parse_networks(trusted))
    return access.enter(key, who or caller(), endpoint, asked)


def refused(key: Credential, *args: Any, **options: Any) -> str:
    """The code with which the door stays shut."""
    with pytest.raises(Forbidden) as caught:
        enter(key, *args, **options)
    return caught.value.code


# ── From where ───────────────────────────────────────────────────────────────────────────────────

NETWORKS = ("192.0.2.0/24", "2001:db8::/32")


@pytest.mark.parametrize(
    "peer", ["192.0.2.1", "192.0.2.255", "2001:db8::1", "::ffff:192.0.2.9", "::FFFF:c000:0209"]
)
def test_a_caller_in_one_of_the_networks_may_enter(peer: str) -> None:
    assert enter(credential(networks=NETWORKS), caller(peer)) is None


@pytest.mark.parametrize(
    "peer",
    [
        "192.0.3.1",
        "2001:db9::1",
        "::1",
        "::ffff:192.0.3.9",
        "::192.0.2.1",
        "fe80::1%eth0",
        "",
        None,
    ],
)
def test_a_caller_elsewhere_or_nowhere_may_not(peer: str | None) -> None:
    assert refused(credential(networks=NETWORKS), caller(peer)) == "ip_not_allowed"


def test_an_empty_list_of_networks_lets_nobody_in() -> None:
    assert refused(credential(networks=())) == "ip_not_allowed"


@pytest.mark.parametrize(
    "forwarded", [("192.0.2.1",), ("192.0.2.1, 192.0.2.1",), ("192.0.2.1", "192.0.2.2")]
)
def test_what_an_untrusted_peer_says_of_its_address_counts_for_nothing(
    forwarded: tuple[str, ...],
) -> None:
    key = credential(networks=NETWORKS)
    assert refused(key, caller("203.0.113.9", *forwarded)) == "ip_not_allowed"
    assert refused(key, caller("203.0.113.9", *forwarded), trusted=("10.0.0.0/8",)) == (
        "ip_not_allowed"
    )
    assert enter(key, caller("192.0.2.1", "203.0.113.9")) is None


@pytest.mark.parametrize(
    ("forwarded", "is_let_in"),
    [
        (("192.0.2.1",), True),
        (("::ffff:192.0.2.1",), True),
        (("203.0.113.9, 192.0.2.1",), True),
        (("203.0.113.9", "192.0.2.1, 10.0.0.7"), True),
        # What stands before the last stranger was written by that stranger.
        (("192.0.2.1, 203.0.113.9",), False),
        (("192.0.2.1, 203.0.113.9, 10.0.0.7",), False),
        (("192.0.2.1, unknown",), False),
        (("192.0.2.1:443",), False),
        (("192.0.2.1,",), False),
        (("[2001:db8::1]",), False),
        (("",), False),
        (("10.0.0.7",), False),
        ((), False),
    ],
)
def test_behind_a_trusted_proxy_the_last_stranger_in_its_list_counts(
    forwarded: tuple[str, ...], *, is_let_in: bool
) -> None:
    key, who = credential(networks=NETWORKS), caller("10.0.0.1", *forwarded)
    if is_let_in:
        assert enter(key, who, trusted=("10.0.0.0/8",)) is None
    else:
        assert refused(key, who, trusted=("10.0.0.0/8",)) == "ip_not_allowed"


# ── At which endpoint ────────────────────────────────────────────────────────────────────────────


def test_a_key_for_some_endpoints_calls_no_others() -> None:
    key = credential(endpoints=("embeddings",))
    assert enter(key, endpoint=EMBEDDINGS) is None
    assert refused(key, endpoint=CHAT) == "endpoint_not_allowed"
    assert refused(credential(endpoints=())) == "endpoint_not_allowed"


# ── With which labels ────────────────────────────────────────────────────────────────────────────


def test_a_keys_own_labels_go_with_every_call_and_those_allowed_beside_them() -> None:
    key = credential(labels={"team": "search"}, label_names=("feature", "user"))
    assert enter(key) == '{"team":"search"}'
    assert enter(key, asked={}) == '{"team":"search"}'
    both = enter(key, asked={"user": "ü", "feature": "x"})
    assert both == '{"feature":"x","team":"search","user":"\\u00fc"}'
    assert enter(credential(label_names=("feature",)), asked={"feature": "x"}) == '{"feature":"x"}'
    assert enter(credential(), asked={}) is None


@pytest.mark.parametrize(
    ("fields", "asked"),
    [
        ({}, {"team": "ads"}),
        ({"label_names": ()}, {"team": "ads"}),
        ({"label_names": ("feature",)}, {"feature": "x", "team": "ads"}),
        ({"labels": {"team": "search"}}, {"team": "ads"}),
        ({"labels": {"team": "search"}, "label_names": ("team",)}, {"team": "ads"}),
        ({"labels": {"team": "search"}, "label_names": ("team",)}, {"team": "search"}),
    ],
)
def test_no_caller_sets_a_label_that_is_not_theirs_to_set(
    fields: dict[str, Any], asked: dict[str, str]
) -> None:
    assert refused(credential(**fields), asked=asked) == "label_not_allowed"


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        ("team=search", {"team": "search"}),
        (" team = search ,\tfeature=x ", {"team": "search", "feature": "x"}),
        ("a=1,,b=2,", {"a": "1", "b": "2"}),
        ("a=1=2", {"a": "1=2"}),
        ("a=b c", {"a": "b c"}),
        ("a=b%2Cc%25", {"a": "b,c%"}),
        ("a=%C3%BC", {"a": "ü"}),
        ("", {}),
    ],
)
def test_labels_are_read_as_written(header: str, expected: dict[str, str]) -> None:
    assert labels.read([(b"x-bursar-labels", header.encode())]) == expected


def test_several_label_headers_count_as_one() -> None:
    headers = [(labels.HEADER, b"a=1"), (b"x-other", b"c=3"), (labels.HEADER, b"b=2")]
    assert labels.read(headers) == {"a": "1", "b": "2"}


@pytest.mark.parametrize(
    "header",
    [
        b"team",
        b"=search",
        b"team=",
        b"Team=x",
        b"te am=x",
        b"a=1,a=2",
        b"a=1,a=1",
        b"a=%",
        b"a=%2",
        b"a=%zz",
        b"a=%FF",
        b"a=%00",
        b"a=%0d%0aset-cookie:x",
        b"a=%E2%80%AE",
        b"a=%20",
        b"a=\xc3\xbc",
        b"a=" + b"x" * 256,
        b"x" * 65 + b"=1",
        b",".join(b"n%d=1" % number for number in range(17)),
        b"a=" + b"%41" * 6_000,
    ],
)
def test_malformed_labels_are_refused_before_anything_else_is_asked(header: bytes) -> None:
    with pytest.raises(Unreadable) as caught:
        labels.read([(labels.HEADER, header)])
    assert (caught.value.code, caught.value.param) == ("invalid_label", "x-bursar-labels")


def test_sixteen_labels_of_full_length_are_read() -> None:
    longest = {f"n{number:02}".ljust(64, "x"): "ü" * 127 for number in range(16)}
    header = ",".join(f"{name}={'%C3%BC' * 127}" for name in longest).encode()
    assert labels.read([(labels.HEADER, header)]) == longest


def test_labels_are_a_header_that_decides_something() -> None:
    plain = [(b"authorization", b"Bearer x"), (b"content-type", b"application/json")]
    given = [*plain, (b"accept", b"*/*"), (labels.HEADER, b"a=1")]
    assert read_headers(given) == [*plain, (labels.HEADER, b"a=1")]


# ── Which models ─────────────────────────────────────────────────────────────────────────────────

LOCAL = Route(Upstream("local", Sandbox(), (), ("*",), {}), "gpt-4o")
SANDBOX = Route(Upstream("sandbox", Sandbox(), (), ("*",), {}, is_sandbox=True), "sandbox/echo")


def routes(key: Credential, model: str, *found: Route) -> list[Route]:
    """Where the key may call the model."""
    assert key.restrictions is not None
    return list(Access().require_model(key.restrictions, found, model))


@pytest.mark.parametrize("model", ["gpt-4o", "gpt-4o-mini", "text-embedding-3"])
def test_a_key_with_patterns_calls_what_they_mean(model: str) -> None:
    key = credential(models=("gpt-4o*", "text-embedding-?"))
    assert routes(key, model, LOCAL) == [LOCAL]


@pytest.mark.parametrize(
    "model", ["gpt-4", "GPT-4o", "xgpt-4o", "text-embedding-33", "sandbox/echo"]
)
def test_a_key_with_patterns_calls_nothing_else(model: str) -> None:
    key = credential(models=("gpt-4o*", "text-embedding-?"))
    with pytest.raises(Forbidden) as caught:
        routes(key, model, LOCAL)
    assert (caught.value.code, caught.value.param) == ("model_not_allowed", "model")


def test_a_test_key_reaches_the_sandbox_and_no_other_upstream_of_the_same_model() -> None:
    key = credential(environment="test")
    assert routes(key, "sandbox/echo", LOCAL, SANDBOX) == [SANDBOX]
    with pytest.raises(Forbidden, match="sandbox") as caught:
        routes(key, "gpt-4o", LOCAL)
    assert caught.value.code == "model_not_allowed"


def test_a_live_key_may_use_the_sandbox_too() -> None:
    assert routes(credential(models=("*",)), "sandbox/echo", SANDBOX) == [SANDBOX]


# ── In which order ───────────────────────────────────────────────────────────────────────────────


def test_address_endpoint_and_labels_are_asked_in_this_order() -> None:
    closed: dict[str, Any] = {"networks": (), "endpoints": (), "labels": {"team": "x"}}
    seen = []
    for opened in ({}, {"networks": None}, {"networks": None, "endpoints": None}):
        key = credential(**{**closed, **opened})
        seen.append(refused(key, asked={"team": "y"}))
    assert seen == ["ip_not_allowed", "endpoint_not_allowed", "label_not_allowed"]


@pytest.mark.parametrize(
    "fields",
    [
        {"environment": "test"},
        {"labels": {"a": "b"}},
        {"label_names": ("a",)},
        {"models": ()},
        {"endpoints": ()},
        {"networks": ()},
    ],
)
def test_every_restriction_makes_a_key_go_through_the_door(fields: dict[str, Any]) -> None:
    key = credential(**fields)
    assert key.restrictions is not None
    assert key.labels == (
        json.dumps(fields["labels"], separators=(",", ":")) if key.labels else None
    )


def test_a_key_without_restrictions_is_never_asked() -> None:
    assert (credential().restrictions, credential().labels) == (None, None)


def test_a_refusal_says_nothing_of_what_the_key_may_do() -> None:
    key = credential(networks=("198.51.100.0/24",), models=("secret-model",))
    with pytest.raises(BursarError) as caught:
        enter(key)
    assert "198.51.100" not in caught.value.message
    with pytest.raises(BursarError) as caught:
        routes(key, "gpt-4o", LOCAL)
    assert "secret-model" not in caught.value.message
