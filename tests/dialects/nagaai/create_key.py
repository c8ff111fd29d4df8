"""Create an API key with a credit limit."""

# ruff: noqa: S113 - as the documentation has it: a client without a time-out

import os

import requests

BASE = os.environ["NAGAAI_BASE"]
PROVISIONING_KEY = os.environ["PROVISIONING_KEY"]

response = requests.post(
    f"{BASE}/account/keys",
    headers={
        "Authorization": f"Bearer {PROVISIONING_KEY}",
        "Content-Type": "application/json",
    },
    json={"name": "Production API Key", "credit_limit": 500.00},
)
key_data = response.json()
print(f"New API Key: {key_data['key']}")  # Store this securely!
