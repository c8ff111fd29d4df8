"""Rename a key, enable it and change its credit limit."""

# ruff: noqa: S113 - as the documentation has it: a client without a time-out

import os

import requests

BASE = os.environ["NAGAAI_BASE"]
PROVISIONING_KEY = os.environ["PROVISIONING_KEY"]
key_id = os.environ["KEY_ID"]

response = requests.patch(
    f"{BASE}/account/keys/{key_id}",
    headers={
        "Authorization": f"Bearer {PROVISIONING_KEY}",
        "Content-Type": "application/json",
    },
    json={"name": "Updated Key Name", "is_enabled": True, "credit_limit": 200.00},
)
print(response.status_code)
