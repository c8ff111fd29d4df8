"""The Venice dialect at /api/v1, as venice-sdk 0.3.3, venice-py 2.9.0 and venice_ai 1.3.0 speak it.

    theirs                            ours
    ────────────────────────────────  ──────────────────────────────────────────────────────────────
    ADMIN key                         provisioning key: manages the account, calls no model
    INFERENCE key                     inference key
    a key's id "3"                    the same key 3
    description                       the key's name
    consumptionLimit.usd              a cost limit of the key in the window of its limitPeriod
    limitPeriod EPOCH, MONTH,         window day, month (in the account's time zone), lifetime
      LIFETIME
    ipAllowlist                       the key's networks
    usage.trailingSevenDays           what the key has spent in seven days
    RPM, RPD, TPM (RPH, TPH, TPD)     the least limit of requests or tokens by minute, day (hour)
                                      that applies to the key; no limit is 2^53 - 1
    a billing entry                   one usage event: `amount` is negative, a unit is 1,000 tokens
    thousandths of a USD              money where the seed's UsageInfo has whole numbers

Without a counterpart, and refused where a request asks for it: DIEM and VCU (shown as 0 or null),
model privacy other than ALL, keys for wallets. Owns these shapes; must not know a rule.
"""
