"""Sign-ins: the tokens that every way of signing in leads to."""

from bursar.sdk.results import Moment, Result, SecretText


class SignIn(Result):
    """Two tokens: `access_token` stands where a key would, for `expires_in` seconds.

    `refresh_token` is good for one `refresh`, which has the next two.
    """

    access_token: SecretText
    token_type: str
    expires_in: int
    expires_at: Moment
    refresh_token: SecretText
    refresh_token_expires_at: Moment
    session_id: int
    user_id: int
    account_id: int
    role: str
