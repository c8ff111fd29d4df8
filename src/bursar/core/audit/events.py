"""Audit events: what is noted of a change, and who made it from where.

Owns the one table of what can be noted, and that no secret of ours gets into a note, whatever field
somebody has put it into. Must not know what a change consists of; its use case says so.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from bursar.core import secrets
from bursar.core.errors import InvariantViolated

# What belongs to no account: plans, prices, settings, and people who are nobody's.
OPERATOR_LOG: Final = 0
# What JSON can say, by name; amounts of money and moments are texts.
Values = Mapping[str, object]

_NEVER: Final = frozenset(("code", "hash", "password", "secret", "token"))


class AuditAction(StrEnum):
    """What can have been done, as noun and verb."""

    ACCOUNT_CANCEL = "account.cancel"
    ACCOUNT_CREATE = "account.create"
    ACCOUNT_RESUME = "account.resume"
    ACCOUNT_SUSPEND = "account.suspend"
    ACCOUNT_UPDATE = "account.update"
    CREDIT_CORRECT = "credit.correct"
    CREDIT_GRANT = "credit.grant"
    IDENTITY_LINK = "identity.link"
    IDENTITY_UNLINK = "identity.unlink"
    INVITATION_CREATE = "invitation.create"
    INVITATION_UPDATE = "invitation.update"
    INVITATION_WITHDRAW = "invitation.withdraw"
    KEY_CREATE = "key.create"
    KEY_DELETE = "key.delete"
    KEY_LEAK = "key.leak"
    KEY_ROTATE = "key.rotate"
    KEY_UPDATE = "key.update"
    LIMIT_REMOVE = "limit.remove"
    LIMIT_SET = "limit.set"
    PASSKEY_ADD = "passkey.add"
    PASSKEY_REMOVE = "passkey.remove"
    PASSKEY_UPDATE = "passkey.update"
    PASSWORD_CHANGE = "password.change"  # noqa: S105 - the name of an action
    PASSWORD_REQUEST_RESET = "password.request_reset"  # noqa: S105
    PASSWORD_RESET = "password.reset"  # noqa: S105
    PLAN_CREATE = "plan.create"
    PLAN_DELETE = "plan.delete"
    PLAN_REMOVE_LIMIT = "plan.remove_limit"
    PLAN_SET_LIMIT = "plan.set_limit"
    PLAN_UPDATE = "plan.update"
    PRICE_ADD = "price.add"
    PROJECT_ADD_MEMBER = "project.add_member"
    PROJECT_CREATE = "project.create"
    PROJECT_DELETE = "project.delete"
    PROJECT_REMOVE_MEMBER = "project.remove_member"
    PROJECT_UPDATE = "project.update"
    SECOND_FACTOR_BEGIN = "second_factor.begin"
    SECOND_FACTOR_CONFIRM = "second_factor.confirm"
    SECOND_FACTOR_REMOVE = "second_factor.remove"
    SECOND_FACTOR_RENEW_CODES = "second_factor.renew_codes"
    SESSION_END = "session.end"
    SESSION_END_ALL = "session.end_all"
    SESSION_REFUSE = "session.refuse"
    SESSION_REUSE = "session.reuse"
    SESSION_SIGN_IN = "session.sign_in"
    SESSION_SWITCH = "session.switch"
    SETTINGS_START = "settings.start"
    SIGNING_KEY_ROTATE = "signing_key.rotate"
    USER_JOIN = "user.join"
    USER_REMOVE = "user.remove"
    USER_RENAME = "user.rename"
    USER_UPDATE = "user.update"


@dataclass(frozen=True, slots=True)
class Origin:
    """Who has something done, from where, in which request, and in which account they act.

    Address and request may be empty. `actor` is `user:5`, `key:12`, `provider:acme` for the word of
    a sign-in service, `command line`, `system` for what the server does by itself, or `anybody` for
    who has not proved anything.
    """

    actor: str
    address: str = ""
    request_id: str = ""
    account_id: int = OPERATOR_LOG


SYSTEM: Final = Origin("system")
ANYBODY: Final = "anybody"


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditEvent:
    """One change of something: `target` is as `key:12`, `before` and `after` what it was and is.

    Only what has changed is in them; None is for what was not there, or is not there any more.
    `actor`, if given, takes the place of the origin's: who has only now proved who they are.
    """

    account_id: int
    action: AuditAction
    target: str
    before: Values | None = None
    after: Values | None = None
    actor: str | None = None


def find_changes(before: Values, after: Values) -> tuple[Values, Values]:
    """Return what differs, as it was and as it is."""
    names = [name for name in after if before.get(name) != after[name]]
    return {name: before.get(name) for name in names}, {name: after[name] for name in names}


def clean(values: Values | None) -> Values | None:
    """Return what may be noted of these values: our secrets in them are blotted out.

    Raises InvariantViolated for a name that says that its value is a secret.
    """
    if values is None:
        return None
    forbidden = _NEVER.intersection(values)
    if forbidden:
        message = f"{', '.join(sorted(forbidden))} must not be in the audit log"
        raise InvariantViolated("invariant_violated", message)
    return {blot(name): _blot(value) for name, value in values.items()}


def blot(text: str) -> str:
    """Return a text with its secrets blotted out."""
    return secrets.blot(text)


def _blot(value: object) -> object:
    if isinstance(value, str):
        return blot(value)
    if isinstance(value, list):
        return [_blot(each) for each in value]
    if isinstance(value, Mapping):
        return {blot(str(name)): _blot(each) for name, each in value.items()}
    return value
