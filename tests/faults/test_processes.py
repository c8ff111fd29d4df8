"""Whole processes die, stop and wake, at moments that nobody chose: the books stay exact."""

from __future__ import annotations

import os
import resource
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from bursar.worker.journal.locks import Lock
from tests import loads, soak, strace
from tests.faults.fleet import fleet
from tests.live import Installation
from tests.upstream_double import Behaviour, ScriptedUpstream

pytestmark = [pytest.mark.faults, pytest.mark.soak]

CREDIT_NANOS = 100_000_000_000
WRITES = "write,writev,sendto,sendmsg"
# System calls of a server at work on SQLite, and which one of a thread is its last.
FEW = (("pwrite64", 9), ("fdatasync", 2), (WRITES, 25), ("fdatasync", 7), (WRITES, 120))
MANY = tuple(
    (calls, nth)
    for calls, most, step in (("pwrite64", 120, 1), ("fdatasync", 30, 1), (WRITES, 400, 5))
    for nth in range(1, most, step)
)
ENDS = ("pwrite64", "unlink", "fdatasync", "munmap", WRITES)
# A soak of a tenth tries every tenth of them.
SWEEP = MANY[:: max(1, len(MANY) // soak.times(1, soaked=len(MANY)))] if soak.IS_ON else FEW
ROUNDS = soak.times(2, soaked=50)
RECOVERY_S = 5.0


def require_sound(made: Installation, upstream: ScriptedUpstream, calls: list[loads.Call]) -> None:
    """Fail unless both ledgers agree, now and when the server has been stopped in order."""
    rows = made.rows()
    loads.require_charged_once(calls, upstream.sales, rows, of=loads.cost)
    assert made.balance_nanos() == CREDIT_NANOS - sum(row.cost_nanos for row in rows)
    made.verify()
    assert made.stop() == 0
    assert (made.journals, made.leased()) == ([], 0)
    made.verify()


def die(made: Installation, calls: str, nth: int) -> list[loads.Call]:
    """Serve under load until a system call is the last."""
    process = made.process
    assert process is not None
    with (
        strace.killing(process.popen.pid, calls, nth=nth),
        loads.calling(made.url, made.secrets.inference_key, clients=4) as load,
    ):
        assert strace.is_over(process.popen, within_s=20), f"never got to {calls} {nth}"
    assert made.wait() == -signal.SIGKILL, f"{calls} {nth}"
    return load.calls


@soak.ended_after(120)
@pytest.mark.parametrize("kind", ["sqlite"])
def test_f_09_a_server_killed_at_any_system_call_at_work_charges_what_was_finished_once(
    made: Installation, upstream: ScriptedUpstream
) -> None:
    strace.require()
    loads.slow_streams(upstream, tokens=40, gap_s=0.002)
    calls: list[loads.Call] = []
    made.start()
    for name, nth in SWEEP:
        calls += die(made, name, nth)
        made.start()
        if soak.IS_ON:
            made.verify()
    assert any(call.is_complete for call in calls)
    require_sound(made, upstream, calls)


@soak.ended_after(120)
@pytest.mark.parametrize("kind", ["sqlite"])
@pytest.mark.parametrize("call", ENDS if soak.IS_ON else ENDS[:2])
def test_f_09_a_server_killed_at_any_system_call_of_its_end_leaves_what_the_next_start_settles(
    made: Installation, upstream: ScriptedUpstream, call: str
) -> None:
    strace.require()
    calls: list[loads.Call] = []
    for nth in range(1, soak.times(1, soaked=20) + 1):
        made.environment |= {"BURSAR_SETTLE_LINGER_MS": "10000"}
        made.start()
        calls += loads.call_at_once(made.url, made.secrets.inference_key, 4, model=loads.WHOLE)
        process = made.process
        assert process is not None
        with strace.killing(process.popen.pid, call, nth=nth):
            made.tell(signal.SIGTERM)
            assert strace.is_over(process.popen, within_s=20)
        code = made.wait()
        assert code in (0, -signal.SIGKILL)
        assert nth > 1 or code, "the call is never made"
    del made.environment["BURSAR_SETTLE_LINGER_MS"]
    made.start()
    assert len(made.rows()) == len(calls)
    require_sound(made, upstream, calls)


def children(made: Installation) -> list[int]:
    """The processes that serve, but for the first."""
    assert made.process is not None
    pid = made.process.popen.pid
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


@soak.ended_after(120)
@pytest.mark.parametrize("kind", ["sqlite", "postgres"] if soak.IS_ON else ["postgres"])
def test_f_10_all_processes_killed_at_once_again_and_again_lose_nothing_and_are_back_in_seconds(
    made: Installation, upstream: ScriptedUpstream, kind: str
) -> None:
    loads.slow_streams(upstream)
    began = time.monotonic()
    if kind == "postgres":
        made.environment["BURSAR_WORKERS"] = "2"
    made.start()
    # What an undisturbed start takes on this machine, as busy as it is.
    usual_s = time.monotonic() - began
    with loads.calling(made.url, made.secrets.inference_key, clients=10) as load:
        for _ in range(ROUNDS):
            done = len(load.complete)
            eventually(lambda done=done: len(load.complete) > done + 10)  # type: ignore[misc]
            for pid in children(made):
                os.kill(pid, signal.SIGKILL)
            made.kill()
            began = time.monotonic()
            made.start()
            assert time.monotonic() - began < max(RECOVERY_S, 3 * usual_s)
    require_sound(made, upstream, load.calls)


def eventually(holds: Callable[[], bool], *, within_s: float = 45.0) -> None:
    deadline = time.monotonic() + within_s
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.02)


@pytest.mark.parametrize("kind", ["postgres"])
def test_f_11_a_worker_that_slept_past_its_lease_spends_nothing_of_it_when_it_wakes(
    made: Installation, upstream: ScriptedUpstream, tmp_path: Path
) -> None:
    in_flight, paid_for = 3, 120
    upstream.models[loads.EXACT] = Behaviour(
        prompt_tokens=loads.EXACT_INPUT, tokens=loads.EXACT_OUTPUT, delay_s=0.02
    )
    settings = {"BURSAR_LEASE_TTL_S": "2", "BURSAR_LEASE_IDLE_S": "60"}
    with fleet(made, upstream, tmp_path, hosts=2, **settings) as hosts:
        asleep, awake = hosts.hosts
        _, secret = asleep.make_key(limit_usd=paid_for * loads.EXACT_NANOS / 1e9)
        calls = loads.call_at_once(asleep.url, secret, 8, model=loads.EXACT)
        assert all(call.is_complete for call in calls)
        upstream.models[loads.EXACT] = Behaviour(
            prompt_tokens=loads.EXACT_INPUT, tokens=loads.EXACT_OUTPUT, delay_s=1
        )
        sold = len(upstream.sales)
        late: list[loads.Call] = []
        waiting = threading.Thread(
            target=lambda: late.extend(
                loads.call_at_once(asleep.url, secret, in_flight, model=loads.EXACT)
            )
        )
        waiting.start()
        eventually(lambda: len(upstream.sales) == sold + in_flight)
        asleep.tell(signal.SIGSTOP)
        eventually(lambda: any("worker_closed" in line for line in awake.said))
        upstream.models[loads.EXACT] = Behaviour(
            prompt_tokens=loads.EXACT_INPUT, tokens=loads.EXACT_OUTPUT
        )
        while calls[-1].status in (200, 429):
            calls += loads.call_at_once(awake.url, secret, 15, model=loads.EXACT)
        assert (calls[-1].status, calls[-1].code) == (402, "insufficient_quota")
        sold = len(upstream.sales)
        asleep.tell(signal.SIGCONT)
        woken = loads.call_at_once(asleep.url, secret, 20, model=loads.EXACT)
        waiting.join()
        eventually(lambda: any("worker_fenced" in line for line in asleep.said))
        asleep.wait_until_ready()
        woken += loads.call_at_once(asleep.url, secret, 5, model=loads.EXACT)
        # What it had leased was spent elsewhere: not one more call was sold.
        assert {call.status for call in woken} <= {402, 503}
        assert len(upstream.sales) == sold
        assert all(call.is_complete for call in late)
        rows = made.rows()
        # Only what it had sold before it fell asleep comes late: that is nobody's but the house's.
        assert sum(row.overrun_nanos for row in rows) == in_flight * loads.EXACT_NANOS
        assert sum(row.cost_nanos for row in rows) == paid_for * loads.EXACT_NANOS
        for call in late:
            call.cost = ""  # Told before the books could say who pays.
        loads.require_charged_once(calls + late, upstream.sales, rows, of=loads.cost)
        assert [host.stop() for host in hosts.hosts] == [0, 0]
    assert made.leased() == 0
    made.verify()


@pytest.mark.parametrize("kind", ["sqlite"])
def test_f_12_a_server_that_gets_no_more_memory_loses_no_finished_call(
    made: Installation, upstream: ScriptedUpstream
) -> None:
    loads.slow_streams(upstream)
    made.start()
    assert made.process is not None
    popen = made.process.popen
    with loads.calling(made.url, made.secrets.inference_key, clients=10) as load:
        eventually(lambda: len(load.complete) > 20)
        pages = int(Path(f"/proc/{popen.pid}/statm").read_text().split()[0])
        most = pages * resource.getpagesize()
        resource.prlimit(popen.pid, resource.RLIMIT_AS, (most, most))
        done = len(load.complete)
        strace.is_over(popen, within_s=1.5)
        # Whether it goes on within what it has, or ends: what callers got is charged.
        assert popen.poll() is not None or len(load.complete) >= done
        made.kill()
    made.start()
    require_sound(made, upstream, load.calls)


@pytest.mark.parametrize("kind", ["sqlite"])
def test_f_50_a_second_sigterm_changes_nothing_and_sigkill_in_the_middle_costs_what_was_noted(
    made: Installation, upstream: ScriptedUpstream
) -> None:
    upstream.models[loads.STREAMED] = Behaviour(tokens=2_000, gap_s=0.01)
    made.start()
    streams: list[loads.Call] = []
    running = threading.Thread(
        target=lambda: streams.extend(
            loads.call_at_once(made.url, made.secrets.inference_key, 5, model=loads.STREAMED)
        )
    )
    running.start()
    eventually(lambda: sum(sale.completion_tokens > 40 for sale in upstream.sales) == 5)
    made.tell(signal.SIGTERM)
    time.sleep(0.3)
    made.tell(signal.SIGTERM)
    time.sleep(0.7)
    assert made.process is not None
    assert made.process.popen.poll() is None, "streams were not waited for"
    made.kill()
    running.join()
    made.start()
    rows = made.rows()
    assert len(rows) == 5
    assert {(row.outcome, row.is_estimated) for row in rows} == {("cut", 1)}
    assert all(row.output_tokens >= 100 for row in rows)
    require_sound(made, upstream, streams)


@pytest.mark.parametrize("kind", ["sqlite"])
def test_f_31_a_damaged_page_of_the_database_is_told_and_never_mended_in_silence(
    made: Installation, upstream: ScriptedUpstream
) -> None:
    made.start()
    calls = loads.call_at_once(made.url, made.secrets.inference_key, 30, model=loads.WHOLE)
    assert made.stop() == 0
    made.verify()
    path = made.data_dir / "bursar.db"
    whole = path.read_bytes()
    marker = calls[0].request_id.encode()
    page = whole.index(marker) // 4_096 * 4_096
    assert page
    # One bit, and a page of rows is no page any more.
    torn = whole[:page] + bytes([whole[page] ^ 0x40]) + whole[page + 1 :]
    path.write_bytes(torn)
    done = made.attempt("verify")
    assert done.returncode != 0, done.stdout
    assert "Traceback" not in done.stderr, done.stderr
    path.write_bytes(whole)
    made.verify()


@pytest.mark.parametrize("kind", ["sqlite"])
def test_f_32_after_a_power_cut_the_server_starts_and_charges_what_the_disk_has(
    made: Installation, upstream: ScriptedUpstream
) -> None:
    made.environment |= {"BURSAR_SETTLE_LINGER_MS": "10000", "BURSAR_SETTLE_BATCH": "10000"}
    made.start()
    with loads.calling(made.url, made.secrets.inference_key, clients=5) as load:
        eventually(lambda: len(load.complete) > 80)
        made.kill()
    (path,) = (path for path in made.journals if path.suffix == ".journal")
    whole = path.read_bytes()
    path.write_bytes(whole[:4_096] + bytes(4_096) + whole[8_192:])
    # The same boot: this is no power cut, and somebody must look.
    assert made.attempt("serve").returncode == 5
    lock = path.with_name(f"{path.name.partition('-')[0]}.lock")
    forge_boot(lock)
    made.start()
    assert any("journal_has_gaps" in line for line in made.said)
    assert any("charges_lost" in line for line in made.said)
    rows = made.rows()
    sold = {sale.body["messages"][0]["content"].split()[0]: sale for sale in upstream.sales}
    by_id = {call.request_id: call for call in load.calls}
    assert 0 < len(rows) < len(load.complete)
    for row in rows:
        if row.event_id in by_id:
            assert row.cost_nanos == loads.cost(sold[by_id[row.event_id].marker])
    assert made.balance_nanos() == CREDIT_NANOS - sum(row.cost_nanos for row in rows)
    assert made.leased() == 0
    made.verify()
    assert path.with_name(f"{path.name}.damaged").exists()


def forge_boot(path: Path) -> None:
    """Let a dead worker have lived in another boot of this machine."""
    lock = Lock(path)
    assert lock.acquire()
    identity = lock.read()
    assert identity is not None
    lock.release(remove=False)
    assert lock.make(identity._replace(boot_id="another-boot"))
    lock.release(remove=False)
