"""Delete a key."""

# ruff: noqa: S113 - as the documentation has it: a client without a time-out

import os

import requests

BASE = os.environ["NAGAAI_BASE"]
PROVISIONING_KEY = os.environ["PROVISIONING_KEY"]
key_id = os.environ["KEY_ID"]

response = requests.delete(
    f"{BASE}/account/keys/{key_id}",
    headers={"Authorization": f"Bearer {PROVISIONING_KEY}"},
)
print(response.status_code)
