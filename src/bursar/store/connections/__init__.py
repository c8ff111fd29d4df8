"""Connections: how each database is reached, and when a connection is trusted no longer.

Owns engines, their settings and their bounds in time. Must not know transactions or tables.
"""

from abc import ABC, abstractmethod

from sqlalchemy.ext.asyncio import AsyncEngine


class Link(ABC):
    """The way to one database: its engine, and what must hold before it is used."""

    engine: AsyncEngine

    @abstractmethod
    def check(self) -> None:
        """Raise OSError when the database must not be used at the moment."""

    @abstractmethod
    def mistrust(self) -> None:
        """One connection has fallen silent or broken: use none that was made before now."""
