"""The HTTP server and the signals that end it.

Owns who is told to stop, and when. Must not know what is served.
"""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager

import uvicorn

from bursar.adapters import processes
from bursar.worker.plane import Worker


class HttpServer(uvicorn.Server):
    """uvicorn's server, which would raise the signal again and end us before we have settled."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave the signals to whoever runs the server."""
        yield


class Told:
    """SIGINT and SIGTERM, from before the first step of the start until after the last charge.

    At the start they undo what has been started. Later they have requests finish; a second SIGINT
    ends those too. While the last charges are settled they change nothing: that is what they want.
    """

    def __init__(self) -> None:
        self._task = asyncio.current_task()
        self._http: HttpServer | None = None
        self._worker: Worker | None = None
        self._is_told = False

    def pass_on(self, http: HttpServer, worker: Worker) -> None:
        """Let the server handle them from now on; whoever asks is told that it is not ready."""
        self._http, self._worker = http, worker

    def __enter__(self) -> "Told":
        for number in processes.SIGNALS:
            asyncio.get_running_loop().add_signal_handler(number, self._tell, number)
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> bool:
        for number in processes.SIGNALS:
            asyncio.get_running_loop().remove_signal_handler(number)
        # Being told to stop is no failure, however early.
        return self._is_told and kind is asyncio.CancelledError

    def _tell(self, number: int) -> None:
        if self._http is not None and self._worker is not None:
            self._worker.is_leaving = True
            self._http.handle_exit(number, None)
        elif self._task is not None and not self._is_told:
            self._task.cancel()
        self._is_told = True
