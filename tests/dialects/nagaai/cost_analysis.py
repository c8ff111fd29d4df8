"""Cost analysis by model and by API key."""

# ruff: noqa: S113 - as the documentation has it: a client without a time-out

import os

import requests

BASE = os.environ["NAGAAI_BASE"]
PROVISIONING_KEY = os.environ["PROVISIONING_KEY"]

response = requests.get(
    f"{BASE}/account/activity?days=30",
    headers={"Authorization": f"Bearer {PROVISIONING_KEY}"},
)
activity = response.json()

# Analyze by model
print("Cost by model:")
for model in activity["top_models"]:
    cost = float(model["total_cost"])
    requests = model["request_count"]
    avg_cost = cost / requests
    print(f"{model['model_name']}: ${cost:.2f} ({requests} requests, ${avg_cost:.4f} avg)")

# Analyze by API key
print("\nCost by API key:")
for key in activity["api_key_usage"]:
    print(f"{key['api_key_name']}: ${key['total_cost']}")
