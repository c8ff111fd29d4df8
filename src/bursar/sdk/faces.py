"""The two faces: a call that is described once becomes a method that blocks, or one to await.

Owns the step from a description to a bound method with the same signature, documentation and
types. A method `m` also has `m.with_raw_response(…)`, which answers with headers and body beside
the value.
"""

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Generic, ParamSpec, TypeVar, get_args, overload

from bursar.sdk.calls import Answer, Call, Page, RawResponse
from bursar.sdk.configuration import Options
from bursar.sdk.pages import AsyncPaged, Paged
from bursar.sdk.transport import AsyncConnection, Connection

P = ParamSpec("P")
T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)


@dataclass(frozen=True, slots=True)
class Resource:
    """A part of the API, called by blocking methods."""

    connection: Connection
    options: Options

    def run(self, call: Call[T]) -> tuple[T, Answer]:
        """Carry out a call: its value, and the answer that it was read from."""
        answer = self.connection.run(call, self.options)
        return call.read(answer), answer

    def __repr__(self) -> str:
        return f"<{type(self).__name__} of {self.options.base_url}>"


@dataclass(frozen=True, slots=True)
class AsyncResource:
    """A part of the API, called by methods to await."""

    connection: AsyncConnection
    options: Options

    async def run(self, call: Call[T]) -> tuple[T, Answer]:
        """Carry out a call: its value, and the answer that it was read from."""
        answer = await self.connection.run(call, self.options)
        return call.read(answer), answer

    def __repr__(self) -> str:
        return f"<{type(self).__name__} of {self.options.base_url}>"


class _Bound(Generic[P, T_co]):
    """A described call on a resource: what both faces' methods look like from outside."""

    def __init__(self, describe: Callable[P, Call[Any]], resource: Any) -> None:
        self._describe = describe
        self._resource = resource
        self.__name__: str = describe.__name__.removeprefix("_")
        self.__doc__: str | None = describe.__doc__
        self.__signature__: inspect.Signature = _signature(describe)

    def __repr__(self) -> str:
        return f"<method {type(self._resource).__name__}.{self.__name__}>"


class Method(_Bound[P, T_co]):
    """A method that blocks."""

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> T_co:
        """Carry it out and return its value."""
        value: T_co = self._resource.run(self._describe(*args, **kwargs))[0]
        return value

    def with_raw_response(self, *args: P.args, **kwargs: P.kwargs) -> RawResponse[T_co]:
        """Carry it out and return status, headers and body beside the value."""
        value, answer = self._resource.run(self._describe(*args, **kwargs))
        return RawResponse(answer.status, answer.headers, answer.content, value)


class AsyncMethod(_Bound[P, T_co]):
    """A method to await."""

    async def __call__(self, *args: P.args, **kwargs: P.kwargs) -> T_co:
        """Carry it out and return its value."""
        value: T_co = (await self._resource.run(self._describe(*args, **kwargs)))[0]
        return value

    async def with_raw_response(self, *args: P.args, **kwargs: P.kwargs) -> RawResponse[T_co]:
        """Carry it out and return status, headers and body beside the value."""
        value, answer = await self._resource.run(self._describe(*args, **kwargs))
        return RawResponse(answer.status, answer.headers, answer.content, value)


class PagedMethod(_Bound[P, T_co]):
    """A method whose value is a list that is fetched page by page while it is read."""

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> Paged[T_co]:
        """Return the list; nothing is asked until it is read."""
        return Paged(self._resource.run, self._describe(*args, **kwargs))

    def with_raw_response(self, *args: P.args, **kwargs: P.kwargs) -> RawResponse[Page[T_co]]:
        """Fetch the first page and return status, headers and body beside it."""
        value, answer = self._resource.run(self._describe(*args, **kwargs))
        return RawResponse(answer.status, answer.headers, answer.content, value)


class AsyncPagedMethod(_Bound[P, T_co]):
    """A method whose value is a list that is fetched page by page while it is read."""

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> AsyncPaged[T_co]:
        """Return the list; nothing is asked until it is read."""
        return AsyncPaged(self._resource.run, self._describe(*args, **kwargs))

    async def with_raw_response(self, *args: P.args, **kwargs: P.kwargs) -> RawResponse[Page[T_co]]:
        """Fetch the first page and return status, headers and body beside it."""
        value, answer = await self._resource.run(self._describe(*args, **kwargs))
        return RawResponse(answer.status, answer.headers, answer.content, value)


class sync(Generic[P, T_co]):  # noqa: N801 - stands where a decorator would
    """The blocking method of a described call."""

    def __init__(self, describe: Callable[P, Call[T_co]]) -> None:
        self.describe: Callable[P, Call[T_co]] = describe
        self.__doc__: str | None = describe.__doc__

    @overload
    def __get__(self, resource: None, owner: object) -> "sync[P, T_co]": ...
    @overload
    def __get__(self, resource: Resource, owner: object) -> Method[P, T_co]: ...
    def __get__(self, resource: Resource | None, owner: object) -> Any:
        """The method of one resource."""
        return self if resource is None else Method(self.describe, resource)


class awaited(Generic[P, T_co]):  # noqa: N801
    """The method to await of a described call."""

    def __init__(self, describe: Callable[P, Call[T_co]]) -> None:
        self.describe: Callable[P, Call[T_co]] = describe
        self.__doc__: str | None = describe.__doc__

    @overload
    def __get__(self, resource: None, owner: object) -> "awaited[P, T_co]": ...
    @overload
    def __get__(self, resource: AsyncResource, owner: object) -> AsyncMethod[P, T_co]: ...
    def __get__(self, resource: AsyncResource | None, owner: object) -> Any:
        """The method of one resource."""
        return self if resource is None else AsyncMethod(self.describe, resource)


class sync_pages(Generic[P, T_co]):  # noqa: N801
    """The blocking method of a described call that answers with pages."""

    def __init__(self, describe: Callable[P, Call[Page[T_co]]]) -> None:
        self.describe: Callable[P, Call[Page[T_co]]] = describe
        self.__doc__: str | None = describe.__doc__

    @overload
    def __get__(self, resource: None, owner: object) -> "sync_pages[P, T_co]": ...
    @overload
    def __get__(self, resource: Resource, owner: object) -> PagedMethod[P, T_co]: ...
    def __get__(self, resource: Resource | None, owner: object) -> Any:
        """The method of one resource."""
        return self if resource is None else PagedMethod(self.describe, resource)


class awaited_pages(Generic[P, T_co]):  # noqa: N801
    """The method to await of a described call that answers with pages."""

    def __init__(self, describe: Callable[P, Call[Page[T_co]]]) -> None:
        self.describe: Callable[P, Call[Page[T_co]]] = describe
        self.__doc__: str | None = describe.__doc__

    @overload
    def __get__(self, resource: None, owner: object) -> "awaited_pages[P, T_co]": ...
    @overload
    def __get__(self, resource: AsyncResource, owner: object) -> AsyncPagedMethod[P, T_co]: ...
    def __get__(self, resource: AsyncResource | None, owner: object) -> Any:
        """The method of one resource."""
        return self if resource is None else AsyncPagedMethod(self.describe, resource)


def _signature(describe: Callable[..., Call[Any]]) -> inspect.Signature:
    """A description's parameters, and the value of the call that it describes."""
    found = inspect.signature(describe)
    (value,) = get_args(found.return_annotation) or (Any,)
    return found.replace(return_annotation=value)
