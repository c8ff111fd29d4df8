"""`bursar explain`: what would become of a request, on a terminal and for programs."""

from __future__ import annotations

from typing import Any

from tests.cli.conftest import Bursar


def test_it_says_what_applies_what_is_left_and_what_would_refuse(
    bursar: Bursar, installed: dict[str, Any]
) -> None:
    made = bursar("keys", "create", "--name", "one", "--limit", "0.01", "--json").json
    key_id = made["id"]
    asked = ("explain", key_id, "sandbox/echo", "--prompt-bytes", 1000, "--max-tokens", 100)
    found = bursar(*asked, "--json")
    assert found.code == 0
    # 1000 tokens at 0.10 USD a million, 100 at 0.40.
    assert found.json["needs"]["cost"] == "0.00014"
    assert [limit["name"] for limit in found.json["limits"]] == [
        "wallet/cost/lifetime",
        f"key:{key_id}/cost/lifetime",
    ]
    assert found.json["affordable_requests"] == 71
    bursar("limits", "set", f"key:{key_id}", "tokens", "day", "--limit", 300)
    refused = bursar(*asked, "--json")
    assert refused.code == 1
    verdict = refused.json["verdict"]
    assert (verdict["status"], verdict["code"]) == (429, "rate_limit_exceeded")
    assert verdict["limit"] == f"key:{key_id}/tokens/day"
    told = bursar(*asked)
    assert told.code == 1
    assert "It would be refused: 429 rate_limit_exceeded." in told.stdout
    rows = {line.split()[0]: line.split() for line in told.stdout.splitlines() if "/" in line}
    assert "no" in rows[f"key:{key_id}/tokens/day"]
    assert "yes" in rows["wallet/cost/lifetime"]


def test_a_model_that_nobody_serves_is_named_as_the_reason(
    bursar: Bursar, installed: dict[str, Any]
) -> None:
    found = bursar("explain", 3, "nobody-serves-this", "--prompt-tokens", 10)
    assert found.code == 1
    assert "404 model_not_found" in found.stdout


def test_what_is_wrong_with_the_question_is_said(bursar: Bursar, installed: dict[str, Any]) -> None:
    for arguments, code, said in (
        ((3, "sandbox/echo"), 2, "prompt_tokens: Give either prompt_tokens or prompt_bytes."),
        ((3, "sandbox/echo", "--prompt-tokens", -1), 2, "prompt_tokens: It must be"),
        ((3, "sandbox/echo", "--prompt-tokens", 1, "--choices", 0), 2, "choices: It must be"),
        ((2, "sandbox/echo", "--prompt-tokens", 1), 3, "There is nothing here"),
        ((3, "sandbox/echo", "--prompt-tokens", 1, "--account", 9), 3, "There is nothing here"),
    ):
        done = bursar("explain", *arguments)
        assert (done.code, done.stdout) == (code, ""), arguments
        assert said in done.stderr
