"""Balance monitoring."""

# ruff: noqa: S113 - as the documentation has it: a client without a time-out

import os

import requests

BASE = os.environ["NAGAAI_BASE"]
PROVISIONING_KEY = os.environ["PROVISIONING_KEY"]

response = requests.get(
    f"{BASE}/account/balance", headers={"Authorization": f"Bearer {PROVISIONING_KEY}"}
)
balance = response.json()
print(f"Current balance: ${balance['balance']}")
