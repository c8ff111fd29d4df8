"""The house rules hold in every file, and each of them would notice if it did not."""

from __future__ import annotations

import pytest

from tests.tidy.exceptions import EXCEPTIONS
from tests.tidy.rule import Rule, Tree
from tests.tidy.rules import RULES
from tests.tidy.sources import repository

every_rule = pytest.mark.parametrize("rule", RULES, ids=str)


@every_rule
def test_every_file_keeps_the_rule(rule: Rule) -> None:
    allowed = EXCEPTIONS[rule.name]
    broken = [
        str(finding)
        for finding in rule.check(repository())
        if not any(name in allowed for name in finding.names)
    ]
    if broken:
        pytest.fail(
            "\n".join(
                [
                    f"{rule.why}",
                    *(f"  {line}" for line in broken),
                    f"(rule {rule.name}; a reasoned escape goes into tests/tidy/exceptions.py)",
                ]
            ),
            pytrace=False,
        )


@pytest.mark.parametrize(
    ("rule", "tree"),
    [pytest.param(rule, tree, id=f"{rule}") for rule in RULES for tree in rule.bad],
)
def test_the_rule_bites(rule: Rule, tree: Tree) -> None:
    assert list(rule.check(tree)), f"{rule} lets pass:\n{tree[0].path}\n{tree[0].text}"


@pytest.mark.parametrize(
    ("rule", "tree"),
    [pytest.param(rule, tree, id=f"{rule}") for rule in RULES for tree in rule.good],
)
def test_the_rule_bites_nothing_else(rule: Rule, tree: Tree) -> None:
    assert list(map(str, rule.check(tree))) == []


@every_rule
def test_every_rule_has_examples_of_both_kinds(rule: Rule) -> None:
    assert rule.bad
    assert rule.good


@every_rule
def test_every_exception_has_a_reason_and_is_still_needed(rule: Rule) -> None:
    found = {name for finding in rule.check(repository()) for name in finding.names}
    for where, reason in EXCEPTIONS[rule.name].items():
        assert len(reason.split()) >= 4, f"{where}: say why"
        assert where in found, f"{where} keeps the rule {rule}: take its exception out"


def test_exceptions_are_listed_under_the_rules_that_exist() -> None:
    assert set(EXCEPTIONS) == {rule.name for rule in RULES}
    assert len(RULES) == len(EXCEPTIONS)
