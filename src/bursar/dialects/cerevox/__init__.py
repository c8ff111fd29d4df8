"""The Cerevox dialect: the account API that cerevox 0.2.0 speaks, and what its documents say.

    theirs                            ours
    ────────────────────────────────  ──────────────────────────────────────────────────────────────
    a personal access token           a provisioning key, sent once in the scheme Basic
    access and refresh token          those of a session: of a person, or one the key was traded for
    an account's id "1", "my"         the same account 1; the caller's own
    a user's id "5", "inv_7"          user 5; the open invitation 7
    create a user                     invite them; they are pending until they accept
    isadmin                           the role is owner or admin
    isbanned                          the account does not let them in
    a user's new name                 what this account calls them, until they say otherwise
    rate_limit, messages, base        the account's limit of requests in a calendar month
    message_rate, message_interval    its limit of requests by minute, hour or day, in seconds
    bytes, storage.total              the feature `storage_bytes` of the account
    documents_processed, files        the meter `documents`, whatever the product; likewise
                                        `questions`, `storage_bytes`, `pages`, `advanced_pages`
    hippo_cost, lexa_cost,            the cost of the products `hippo`, `lexa`, `storage`; of others
      storage_cost                      by their names, of model calls `gateway_cost`

No limit is 2^53 - 1, or null where the client takes it. Days are the account's own. Owns these
shapes; must not know a rule.
"""
