"""Budget management: alert on a low balance or a high daily spend."""

# ruff: noqa: S113 - as the documentation has it: a client without a time-out

import os

import requests

BASE = os.environ["NAGAAI_BASE"]
PROVISIONING_KEY = os.environ["PROVISIONING_KEY"]


def send_alert(message):
    print(message)


def check_budget():
    # Check balance
    balance_response = requests.get(
        f"{BASE}/account/balance", headers={"Authorization": f"Bearer {PROVISIONING_KEY}"}
    )
    balance = float(balance_response.json()["balance"])

    # Get recent spending
    activity_response = requests.get(
        f"{BASE}/account/activity?days=1",
        headers={"Authorization": f"Bearer {PROVISIONING_KEY}"},
    )
    daily_cost = float(activity_response.json()["total_stats"]["total_cost"])

    # Alert if balance is low or daily spend is high
    if balance < 50:
        send_alert(f"Low balance: ${balance}")

    if daily_cost > 100:
        send_alert(f"High daily spend: ${daily_cost}")


check_budget()
