"""Cerevox's account API as its documentation has it, against a Bursar server.

    from bursar.compat.cerevox import Account, AsyncAccount, AccountError

Change the import; `BURSAR_API_KEY` and `BURSAR_BASE_URL`, or `api_key=` and `base_url=`, say where
to. The key is a provisioning key.
"""

from bursar.compat.cerevox.client import Account, AsyncAccount
from bursar.compat.cerevox.errors import AccountError
from bursar.compat.cerevox.models import (
    AccountInfo,
    AccountPlan,
    BillingInfo,
    CreatedUser,
    DeletedResponse,
    MessageResponse,
    TokenResponse,
    UpdatedUser,
    UsageStats,
    User,
)

__all__ = [
    "Account",
    "AccountError",
    "AccountInfo",
    "AccountPlan",
    "AsyncAccount",
    "BillingInfo",
    "CreatedUser",
    "DeletedResponse",
    "MessageResponse",
    "TokenResponse",
    "UpdatedUser",
    "UsageStats",
    "User",
]
