"""What the calls answer with; amounts are decimals in USD, days and moments text as documented."""

from bursar.sdk.results import Result, SecretText, Usd


class TokenResponse(Result):
    """Tokens of who has signed in: for a quarter of an hour, and for 30 days but good for once.

    `expires_in` is seconds, `expires_at` seconds since the epoch.
    """

    access_token: SecretText
    refresh_token: SecretText
    expires_in: int
    expires_at: int
    token_type: str


class MessageResponse(Result):
    """What was done."""

    message: str
    status: str


class AccountInfo(Result):
    """An account, and who asks: the person whom the key or the token acts for."""

    account_id: str
    account_name: str
    email: str | None
    name: str | None
    plan: str
    status: str
    created_at: str
    features: dict[str, bool | int | str]


class AccountPlan(Result):
    """A plan: limits of requests in a month (`base`) and in an interval of seconds, and bytes."""

    plan: str
    status: str
    base: int
    bytes: int
    messages: int | None = None
    message_rate: int | None = None
    message_interval: int | None = None
    bytes_overage: int | None = None


class UsageStats(Result):
    """What was used in a span, its cost in USD; `rate_limit` is of requests in this month."""

    total_requests: int
    documents_processed: int
    questions_asked: int
    storage_bytes: int
    rate_limit: int
    rate_limit_reset: str
    estimated_cost: Usd


class BillingInfo(Result):
    """What the present calendar month has come to, in USD; `breakdown` is by product."""

    period_start: str
    period_end: str
    total_cost: Usd
    currency: str
    breakdown: dict[str, Usd]
    next_invoice_date: str


class User(Result):
    """Somebody in the account, or invited to it: `status` is active, suspended or pending."""

    user_id: str
    account_id: str
    email: str
    name: str
    role: str
    isadmin: bool
    isbanned: bool
    created_at: str
    status: str
    lastlogin: str | None = None


class CreatedUser(User):
    """Somebody who was invited; `status` is that of the call."""

    created: bool


class UpdatedUser(User):
    """Somebody after a change; `status` is that of the call."""

    updated: bool


class DeletedResponse(Result):
    """Whether somebody was taken out."""

    deleted: bool = True
    status: str = "success"
