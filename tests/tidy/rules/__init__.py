"""The house rules, one file a subject."""

from tests.tidy.rule import Rule
from tests.tidy.rules import failures, imports, money, names, purity, sizes, sql, texts

RULES: tuple[Rule, ...] = (
    *sizes.RULES,
    *purity.RULES,
    *imports.RULES,
    *money.RULES,
    *sql.RULES,
    *failures.RULES,
    *names.RULES,
    *texts.RULES,
)
