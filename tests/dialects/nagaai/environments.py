"""Multi-environment set-up: a key with its own limit for each."""

# ruff: noqa: S113 - as the documentation has it: a client without a time-out

import os

import requests

BASE = os.environ["NAGAAI_BASE"]
PROVISIONING_KEY = os.environ["PROVISIONING_KEY"]

environments = [
    {"name": "Production", "limit": 1000.00},
    {"name": "Staging", "limit": 100.00},
    {"name": "Development", "limit": 50.00},
    {"name": "Testing", "limit": 25.00},
]

for env in environments:
    response = requests.post(
        f"{BASE}/account/keys",
        headers={"Authorization": f"Bearer {PROVISIONING_KEY}"},
        json={"name": env["name"], "credit_limit": env["limit"]},
    )
    print(f"Created {env['name']} key")
