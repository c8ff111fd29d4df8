"""The quick operational check: print the balance."""

# ruff: noqa: S113 - as the documentation has it: a client without a time-out

import os

import requests

BASE = os.environ["NAGAAI_BASE"]
PROVISIONING_KEY = os.environ["PROVISIONING_KEY"]

response = requests.get(
    f"{BASE}/account/balance",
    headers={"Authorization": f"Bearer {PROVISIONING_KEY}"},
)
response.raise_for_status()

print(response.json()["balance"])
