"""Several `bursar serve` on one database, each as on a host of its own."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

from tests import loads
from tests.live import Installation
from tests.upstream_double import ScriptedUpstream


class Fleet:
    """The hosts; the first is the installation that the others joined."""

    def __init__(self, hosts: list[Installation], upstream: ScriptedUpstream) -> None:
        self.hosts = hosts
        self.upstream = upstream

    @property
    def first(self) -> Installation:
        """The host that changes are made on."""
        return self.hosts[0]

    def require_books(self, calls: Sequence[loads.Call] = ()) -> None:
        """Stop all; fail unless each ends well, nothing is leased, and all ledgers agree."""
        with ThreadPoolExecutor() as pool:
            codes = list(pool.map(Installation.stop, [h for h in self.hosts if h.process]))
        assert set(codes) <= {0}
        rows = self.first.rows()
        assert sum(row.cost_nanos for row in rows) == self.upstream.sold_nanos(loads.cost)
        assert sum(row.overrun_nanos for row in rows) == 0
        if calls:
            loads.require_charged_once(calls, self.upstream.sales, rows, of=loads.cost)
        assert self.first.leased() == 0
        for host in self.hosts:
            assert host.journals == []
        self.first.verify()


@contextmanager
def fleet(
    made: Installation,
    upstream: ScriptedUpstream,
    folder: Path,
    *,
    hosts: int,
    **environment: str,
) -> Iterator[Fleet]:
    """Serve from so many hosts until the block ends."""
    all_hosts = [made]
    for number in range(1, hosts):
        data_dir = folder / f"host-{number}"
        data_dir.mkdir()
        other = Installation(data_dir, made.secrets, database_url=made.database_url)
        other.configure({"name": "local", "base_url": upstream.base_url, "models": loads.MODELS})
        all_hosts.append(other)
    for host in all_hosts:
        host.environment |= environment
    try:
        with ThreadPoolExecutor() as pool:
            list(pool.map(Installation.start, all_hosts))
        yield Fleet(all_hosts, upstream)
    finally:
        for host in all_hosts:
            host.close()
