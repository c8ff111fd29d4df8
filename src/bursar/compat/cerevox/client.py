"""The clients: `Account`, whose methods block, and `AsyncAccount`, whose methods are awaited."""

from types import TracebackType
from typing import TYPE_CHECKING, Final, TypeVar

from bursar.compat.cerevox import calls
from bursar.compat.cerevox.calls import Tokens
from bursar.compat.cerevox.errors import raising
from bursar.sdk.calls import Answer, Call
from bursar.sdk.client import AsyncBursar, Bursar
from bursar.sdk.faces import AsyncResource, Resource, awaited, sync

if TYPE_CHECKING:
    from typing import Self

T = TypeVar("T")


class Account(Resource):
    """A Bursar server, in the form of Cerevox's account client; whatever fails is AccountError.

    Calls are those of the provisioning key, or after `login` of the person, whose tokens are
    renewed before they end.
    """

    _tokens: Tokens

    def __init__(
        self,
        api_key: str | None = None,
        base_url: str | None = None,
        *,
        timeout: float | None = 30.0,
        max_retries: int = 3,
    ) -> None:
        with raising():
            bursar = Bursar(api_key, base_url=base_url, timeout_s=timeout, max_retries=max_retries)
        super().__init__(bursar.connection, bursar.options)
        # Resources are frozen; who has signed in is not.
        object.__setattr__(self, "_tokens", Tokens())

    login: Final = sync(calls.login)
    refresh_token: Final = sync(calls.refresh_token)
    revoke_token: Final = sync(calls.revoke_token)
    get_account_info: Final = sync(calls.get_account_info)
    get_account_plan: Final = sync(calls.get_account_plan)
    get_account_usage: Final = sync(calls.get_account_usage)
    get_usage: Final = sync(calls.get_usage)
    get_billing_info: Final = sync(calls.get_billing_info)
    list_users: Final = sync(calls.list_users)
    create_user: Final = sync(calls.create_user)
    get_user_me: Final = sync(calls.get_user_me)
    update_user_me: Final = sync(calls.update_user_me)
    get_user: Final = sync(calls.get_user)
    update_user: Final = sync(calls.update_user)
    delete_user: Final = sync(calls.delete_user)
    # The shipped client's names.
    get_users: Final = sync(calls.list_users)
    get_user_by_id: Final = sync(calls.get_user)
    update_user_by_id: Final = sync(calls.update_user)
    delete_user_by_id: Final = sync(calls.delete_user)

    def run(self, call: Call[T]) -> tuple[T, Answer]:
        """Carry out a call: its value, and the answer that it was read from."""
        with raising():
            return self.connection.drive(self._tokens.carry_out(call, self.options))

    def close(self) -> None:
        """Close the connections."""
        self.connection.close()

    def __enter__(self) -> "Self":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


class AsyncAccount(AsyncResource):
    """What `Account` is, with methods to await; for one event loop."""

    _tokens: Tokens

    def __init__(
        self,
        api_key: str | None = None,
        base_url: str | None = None,
        *,
        timeout: float | None = 30.0,
        max_retries: int = 3,
    ) -> None:
        with raising():
            bursar = AsyncBursar(
                api_key, base_url=base_url, timeout_s=timeout, max_retries=max_retries
            )
        super().__init__(bursar.connection, bursar.options)
        # Resources are frozen; who has signed in is not.
        object.__setattr__(self, "_tokens", Tokens())

    login: Final = awaited(calls.login)
    refresh_token: Final = awaited(calls.refresh_token)
    revoke_token: Final = awaited(calls.revoke_token)
    get_account_info: Final = awaited(calls.get_account_info)
    get_account_plan: Final = awaited(calls.get_account_plan)
    get_account_usage: Final = awaited(calls.get_account_usage)
    get_usage: Final = awaited(calls.get_usage)
    get_billing_info: Final = awaited(calls.get_billing_info)
    list_users: Final = awaited(calls.list_users)
    create_user: Final = awaited(calls.create_user)
    get_user_me: Final = awaited(calls.get_user_me)
    update_user_me: Final = awaited(calls.update_user_me)
    get_user: Final = awaited(calls.get_user)
    update_user: Final = awaited(calls.update_user)
    delete_user: Final = awaited(calls.delete_user)
    # The shipped client's names.
    get_users: Final = awaited(calls.list_users)
    get_user_by_id: Final = awaited(calls.get_user)
    update_user_by_id: Final = awaited(calls.update_user)
    delete_user_by_id: Final = awaited(calls.delete_user)

    async def run(self, call: Call[T]) -> tuple[T, Answer]:
        """Carry out a call: its value, and the answer that it was read from."""
        with raising():
            return await self.connection.drive(self._tokens.carry_out(call, self.options))

    async def close(self) -> None:
        """Close the connections."""
        await self.connection.close()

    async def __aenter__(self) -> "Self":
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.close()
