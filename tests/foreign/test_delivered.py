"""A command that fails, seen by foreign clients on a busy machine: every line arrives, then the failure."""

import concurrent.futures
import contextlib
import json
import os
import pathlib
import subprocess
import sys
import tempfile
import time

import pytest
from clients import CLIENTS
from server import Server

RUNS = 50
AT_ONCE = 10
PRINTS = "seq 200; echo 'error: the last line'; exit 1"
PRINTED = b"".join(b"%d\n" % number for number in range(1, 201)) + b"error: the last line\n"


@contextlib.contextmanager
def busy_cores():
    spinning = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(os.cpu_count() or 2)]
    try:
        yield
    finally:
        for process in spinning:
            process.kill()
            process.wait()


def feeds(command: str) -> list[str]:
    return [f"f{number}=exec:{command}" for number in range(RUNS)]


def view(client, path: str) -> tuple[bytes, str | None]:
    """All that came, and why it broke off, if it did."""
    body = b""
    try:
        for piece in client.stream(path):
            body += piece
    except Exception as error:  # libcurl's own, or what curl ended with
        return body, str(error)
    return body, None


def wrong(seen: list[tuple[bytes, str | None]]) -> list[str]:
    return [
        f"{number}: {len(body)} of {len(PRINTED)} bytes, {error}"
        for number, (body, error) in enumerate(seen)
        if body != PRINTED or error is None
    ]


def until(what: str, holds) -> None:
    deadline = time.monotonic() + 60
    while not holds():
        assert time.monotonic() < deadline, what
        time.sleep(0.05)


@pytest.fixture(scope="module")
def failed():
    """A server whose feeds have all failed."""
    with Server(*feeds(f"sleep 1; {PRINTS}")) as server:
        plain = CLIENTS["plain-http1.1"](server)

        def all_failed() -> bool:
            states = json.loads(plain.request("/feeds").body)["feeds"]
            return all(feed["state"] == "failed" for feed in states)

        until("the commands end", all_failed)
        yield server


@pytest.mark.parametrize("name", list(CLIENTS))
def test_late_viewers_get_all_of_it(name, failed):
    client = CLIENTS[name](failed)
    paths = [f"/stream/f{number}?from=start" for number in range(RUNS)]
    with busy_cores(), concurrent.futures.ThreadPoolExecutor(AT_ONCE) as pool:
        seen = list(pool.map(lambda path: view(client, path), paths))
    assert wrong(seen) == []


@pytest.mark.parametrize("name", list(CLIENTS))
def test_live_viewers_get_all_of_it(name):
    with tempfile.TemporaryDirectory() as folder:
        gate = pathlib.Path(folder) / "gate"
        os.mkfifo(gate)
        with Server(*feeds(f": < {gate}; {PRINTS}")) as server:
            client, plain = CLIENTS[name](server), CLIENTS["plain-http1.1"](server)

            def all_there() -> bool:
                return all(feed["viewers"] == 1 for feed in json.loads(plain.request("/feeds").body)["feeds"])

            paths = [f"/stream/f{number}" for number in range(RUNS)]
            with busy_cores(), concurrent.futures.ThreadPoolExecutor(RUNS) as pool:
                viewing = [pool.submit(view, client, path) for path in paths]
                until("the viewers come", all_there)
                with gate.open("w"):
                    seen = [future.result() for future in viewing]
            assert wrong(seen) == []
