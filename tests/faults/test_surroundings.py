"""What surrounds a server goes wrong, or is rolled over: it goes on, and its books stay right."""

from __future__ import annotations

import asyncio
import os
import resource
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from urllib.parse import urlsplit

import httpx2
import pytest

from tests import crowd, loads, soak
from tests.faults.fleet import fleet
from tests.live import SOURCE, Installation
from tests.upstream_double import Behaviour, ScriptedUpstream

pytestmark = [pytest.mark.faults, pytest.mark.timeout(120)]
ON_POSTGRES = pytest.mark.parametrize("kind", ["postgres"])
ON_SQLITE = pytest.mark.parametrize("kind", ["sqlite"])


@ON_SQLITE
def test_a_server_that_is_told_to_stop_is_not_ready_from_then_on_and_ends_its_streams(
    made: Installation, upstream: ScriptedUpstream
) -> None:
    upstream.models[loads.STREAMED] = Behaviour(tokens=40, gap_s=0.03)
    made.start()
    probe = crowd.ask("GET", "/readyz", "")
    stream = crowd.chat(made.secrets.inference_key, model=loads.STREAMED, stream=True)

    async def work() -> tuple[list[tuple[float, int]], crowd.Answer]:
        seen = []
        streaming = asyncio.create_task(crowd.at_once(made.url, [stream]))
        await crowd.until(lambda: bool(upstream.sales))
        async with crowd.Line(made.url) as line:
            assert (await line.call(probe)).status == 200
            made.tell(signal.SIGTERM)
            told = time.monotonic()
            while not streaming.done():
                status = (await line.call(probe)).status
                seen.append((time.monotonic() - told, status))
                await asyncio.sleep(0.005)
        return seen, (await streaming)[0]

    seen, answer = crowd.run(work())
    assert {status for _, status in seen} <= {0, 200, 503}
    ready = [after for after, status in seen if status == 200]
    print(f"ready for {max(ready, default=0):.3f} s after the signal; asked {len(seen)} times")
    assert max(ready, default=0) <= soak.at_most(0.1)
    assert any(status == 503 for _, status in seen)
    assert (answer.status, answer.body.endswith(b"data: [DONE]\n\n")) == (200, True)
    assert made.wait() == 0
    assert (made.journals, made.leased()) == ([], 0)
    assert sum(row.cost_nanos for row in made.rows()) == upstream.sold_nanos(loads.cost)
    made.verify()


@ON_POSTGRES
def test_a_rolling_restart_of_four_workers_fails_no_call_that_may_be_tried_again(
    made: Installation, upstream: ScriptedUpstream, tmp_path: Path
) -> None:
    upstream.models[loads.WHOLE] = Behaviour(tokens=3, delay_s=0.02)
    with fleet(made, upstream, tmp_path, hosts=4) as running:
        urls = [host.url for host in running.hosts]
        secret = made.secrets.inference_key
        is_over = False
        answers: list[crowd.Answer] = []
        tried_again = 0

        async def caller(number: int) -> None:
            """What a balancer does: a connection that ended unanswered is tried elsewhere."""
            nonlocal tried_again
            lines = [crowd.Line(url) for url in urls]
            while not is_over:
                request = crowd.chat(secret, model=loads.WHOLE)
                for _ in range(20):
                    answer = await lines[number % 4].call(request)
                    if answer.status not in (0, 503):
                        break
                    number += 1
                    tried_again += 1
                answers.append(answer)
                await asyncio.sleep(0.05)
            for line in lines:
                line.close()

        async def work() -> None:
            await asyncio.gather(*(caller(number) for number in range(4)))

        with crowd.meanwhile(work):
            try:
                for host in running.hosts:
                    assert host.stop() == 0
                    host.start()
            finally:
                is_over = True
        print(f"{len(answers)} calls, {tried_again} tried again")
        assert {answer.status for answer in answers} == {200}
        # A call that was tried again after it had been answered for would have been sold twice.
        assert len(upstream.sales) == len(answers)
        running.require_books()


@ON_POSTGRES
def test_workers_whose_clocks_are_ten_seconds_apart_keep_their_leases_and_the_limit(
    made: Installation, upstream: ScriptedUpstream, tmp_path: Path
) -> None:
    library = next(Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1"), None)
    if library is None:
        pytest.skip("libfaketime is not installed: clocks cannot be set apart")
    upstream.models[loads.EXACT] = Behaviour(
        prompt_tokens=loads.EXACT_INPUT, tokens=loads.EXACT_OUTPUT, delay_s=0.02
    )
    with fleet(made, upstream, tmp_path, hosts=2) as running:
        for host, offset in zip(running.hosts, ("-5", "+5"), strict=True):
            host.stop()
            host.environment |= {
                "LD_PRELOAD": str(library),
                "FAKETIME": offset,
                "FAKETIME_DONT_FAKE_MONOTONIC": "1",
                "BURSAR_LEASE_TTL_S": "8",
            }
            host.start()
        paid_for = 60
        _, secret = running.first.make_key(limit_usd=paid_for * loads.EXACT_NANOS / 1e9)
        answers: list[crowd.Answer] = []
        end = time.monotonic() + 9
        while time.monotonic() < end:
            for host in running.hosts:
                request = [crowd.chat(secret, model=loads.EXACT)]
                answers += crowd.run(crowd.at_once(host.url, request))
            time.sleep(0.1)
        assert sum(answer.status == 200 for answer in answers) == paid_for
        assert {answer.status for answer in answers} == {200, 402}
        said = "".join(line for host in running.hosts for line in host.said)
        assert "worker_fenced" not in said
        assert "worker_closed" not in said
        running.require_books()


@ON_SQLITE
def test_a_server_without_descriptors_left_waits_for_some_without_spinning_and_goes_on(
    made: Installation, upstream: ScriptedUpstream
) -> None:
    made.start()
    assert made.process is not None
    pid = made.process.popen.pid
    used = len(os.listdir(f"/proc/{pid}/fd"))
    resource.prlimit(pid, resource.RLIMIT_NOFILE, (used + 10, used + 10))
    parts = urlsplit(made.url)
    crowd_of = [socket.create_connection((parts.hostname, parts.port)) for _ in range(40)]
    began, before = time.monotonic(), _cpu_s(pid)
    time.sleep(2)
    share = (_cpu_s(pid) - before) / (time.monotonic() - began)
    for each in crowd_of:
        each.close()
    print(f"{share:.0%} of a processor while there were none")
    assert share < 0.5
    calls = loads.call_at_once(made.url, made.secrets.inference_key, 1, model=loads.WHOLE)
    assert [call.status for call in calls] == [200]
    assert made.stop() == 0
    loads.require_charged_once(calls, upstream.sales, made.rows(), of=loads.cost)
    made.verify()


def _cpu_s(pid: int) -> float:
    """Processor time of a process so far, in seconds."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


@ON_SQLITE
@pytest.mark.parametrize("is_closed", [True, False], ids=["closed", "blocked"])
def test_a_server_whose_output_nobody_reads_goes_on_serving(
    made: Installation, upstream: ScriptedUpstream, is_closed: bool
) -> None:
    made.environment["BURSAR_LOG_LEVEL"] = "debug"
    made.environment["BURSAR_PORT"] = str(_free_port())
    reading, writing = os.pipe()
    popen = subprocess.Popen(
        [sys.executable, "-c", "from bursar.cli import main; main()", "serve"],
        env={**os.environ, "PYTHONPATH": str(SOURCE), **made.environment},
        stdout=writing,
        stderr=writing,
    )
    os.close(writing)
    url = f"http://127.0.0.1:{made.environment['BURSAR_PORT']}"
    try:
        _wait_until_ready(url)
        if is_closed:
            os.close(reading)
        else:
            _fill(popen.pid)
        # Whatever is said from now on, the last words at the stop included, finds no reader.
        calls = loads.call_at_once(url, "bsk_nobody", 5, model=loads.WHOLE)
        for _ in range(6):
            calls += loads.call_at_once(url, made.secrets.inference_key, 50, model=loads.WHOLE)
        assert {call.status for call in calls[5:]} == {200}
        assert httpx2.get(f"{url}/healthz", timeout=2).status_code == 200
        popen.send_signal(signal.SIGTERM)
        assert popen.wait(20) == 0
    finally:
        popen.kill()
        popen.wait()
        if not is_closed:
            os.close(reading)
    loads.require_charged_once(calls[5:], upstream.sales, made.rows(), of=loads.cost)
    made.verify()


def _fill(pid: int) -> None:
    """Fill the pipe that a process says things to, so that its next word has to wait."""
    pipe = os.open(f"/proc/{pid}/fd/2", os.O_WRONLY | os.O_NONBLOCK)
    try:
        while True:
            os.write(pipe, b".")
    except BlockingIOError:
        return
    finally:
        os.close(pipe)


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


def _wait_until_ready(url: str) -> None:
    deadline = time.monotonic() + 20
    while True:
        try:
            if httpx2.get(f"{url}/readyz", timeout=2).status_code == 200:
                return
        except httpx2.TransportError:
            pass
        assert time.monotonic() < deadline
        time.sleep(0.05)
