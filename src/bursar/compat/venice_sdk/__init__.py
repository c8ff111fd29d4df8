"""The account API of Venice's SDK as its documentation has it, against a Bursar server.

    from bursar.compat.venice_sdk import VeniceClient

Change the import; `BURSAR_API_KEY` and `BURSAR_BASE_URL`, or `api_key=` and `base_url=`, say where
to. An admin key is a provisioning key, an inference key an inference key.
"""

from bursar.compat.venice_sdk import errors
from bursar.compat.venice_sdk.account import AccountManager
from bursar.compat.venice_sdk.api_keys import APIKey, APIKeysAPI, RateLimitLog, RateLimits
from bursar.compat.venice_sdk.billing import BillingAPI, ModelUsage, UsageInfo
from bursar.compat.venice_sdk.client import ChatAPI, VeniceClient

__all__ = [
    "APIKey",
    "APIKeysAPI",
    "AccountManager",
    "BillingAPI",
    "ChatAPI",
    "ModelUsage",
    "RateLimitLog",
    "RateLimits",
    "UsageInfo",
    "VeniceClient",
    "errors",
]
