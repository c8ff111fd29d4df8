"""Keeps the tests on this machine: a socket that reaches for anything but loopback fails loudly.

Owns the rule of what counts as this machine. It rests on the interpreter's audit events, so it sees
asyncio and every library that uses Python's sockets; it does not see uvloop, which opens sockets in
C, nor the programs that a test starts.
"""

from __future__ import annotations

import ipaddress
import os
import socket
import sys
from collections.abc import Callable
from typing import Any

_PROXIES = ("http_proxy", "https_proxy", "all_proxy", "ftp_proxy")


class NetworkRefused(RuntimeError):
    """A test reached for another machine. Not an OSError, so that no retry or fail-over eats it."""


def stay_on_this_machine() -> None:
    """Refuse, for the rest of this process, every connection that leaves the machine.

    Proxies named in the environment are forgotten, since they would carry loopback calls away.
    """
    for name in _PROXIES:
        os.environ.pop(name, None)
        os.environ.pop(name.upper(), None)
    sys.addaudithook(_refuse_others)


def _refuse_others(event: str, arguments: tuple[Any, ...]) -> None:
    check = _CHECKS.get(event)
    if check is not None:
        check(arguments)


def _check_address(arguments: tuple[Any, ...]) -> None:
    sock, address = arguments[0], arguments[1]
    if sock.family in (socket.AF_INET, socket.AF_INET6) and address is not None:
        _check_host(address[0])


def _check_name(arguments: tuple[Any, ...]) -> None:
    host = arguments[0]
    if host is None or _is_literal(_text(host)):
        return  # nobody is asked; whether it may be reached is decided when it is
    _check_host(host)


def _check_host(host: str | bytes) -> None:
    name = _text(host)
    if name in ("", "localhost"):
        return
    if _is_literal(name) and ipaddress.ip_address(name.partition("%")[0]).is_loopback:
        return
    raise NetworkRefused(f"tests stay on this machine, but this one reached for {name!r}")


def _is_literal(name: str) -> bool:
    try:
        ipaddress.ip_address(name.partition("%")[0])
    except ValueError:
        return False
    return True


def _text(host: str | bytes) -> str:
    return host.decode() if isinstance(host, bytes) else host


_CHECKS: dict[str, Callable[[tuple[Any, ...]], None]] = {
    "socket.connect": _check_address,
    "socket.sendto": _check_address,
    "socket.sendmsg": _check_address,
    "socket.getaddrinfo": _check_name,
    "socket.gethostbyname": _check_name,
}
