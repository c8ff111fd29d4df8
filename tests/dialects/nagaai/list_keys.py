"""List all keys."""

# ruff: noqa: S113 - as the documentation has it: a client without a time-out

import os

import requests

BASE = os.environ["NAGAAI_BASE"]
PROVISIONING_KEY = os.environ["PROVISIONING_KEY"]

response = requests.get(
    f"{BASE}/account/keys", headers={"Authorization": f"Bearer {PROVISIONING_KEY}"}
)
keys = response.json()
for key in keys["keys"]:
    print(f"{key['name']}: {'enabled' if key['is_enabled'] else 'disabled'}")
