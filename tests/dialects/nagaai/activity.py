"""Activity tracking: the last 7 days."""

# ruff: noqa: S113 - as the documentation has it: a client without a time-out

import os

import requests

BASE = os.environ["NAGAAI_BASE"]
PROVISIONING_KEY = os.environ["PROVISIONING_KEY"]

# Get activity for the last 7 days
response = requests.get(
    f"{BASE}/account/activity",
    headers={"Authorization": f"Bearer {PROVISIONING_KEY}"},
    params={"days": 7},
)
activity = response.json()
print(f"Total requests: {activity['total_stats']['total_requests']}")
print(f"Total cost: ${activity['total_stats']['total_cost']}")
print(f"Most used model: {activity['top_models'][0]['model_name']}")
