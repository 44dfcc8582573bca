"""One row of the table in docs/security.md: an attack, a server under a memory limit, and viewers beside it."""

import contextlib
import json
import os
import pathlib
import resource
from collections.abc import Callable

import pytest
from confined import LIMIT, MIB
from victim import SERVERS, TARGET, Used
from viewer import Viewer

ARTIFACTS = pathlib.Path(os.environ.get("H3CAST_ARTIFACTS", TARGET / "artifacts"))


class Row:
    """What an attack did to one server. Bounds are promises of h3cast alone: Caddy's figures are for comparison."""

    def __init__(self, attack: str, server: str) -> None:
        self.attack, self.server = attack, server
        self.told: dict[str, object] = {}

    def run(self, act: Callable, *arguments: str, bulk: bool = False, **bounds: float) -> None:
        """Starts the server, attacks it with `act(victim)`, and compares with the bounds: `gap` and `connect`,
        the longest waits of a viewer in seconds; `above`, bytes more than when idle; `cpu`, seconds of CPU."""
        died = None
        with contextlib.ExitStack() as stack:
            victim = stack.enter_context(SERVERS[self.server](*arguments, bulk=bulk))
            viewer = Viewer(victim)
            try:
                with viewer:
                    victim.begin()
                    self.tell(**(act(victim) or {}))
                    used = victim.end()
            except AssertionError as error:
                if self.server == "h3cast":
                    raise
                died = str(error).splitlines()[0]
                stack.pop_all()
        if died is not None:
            self.tell(died=died)
            self._write()
            return
        self.tell(**figures(used, viewer), limit_mib=LIMIT // MIB, confined=victim.confined.kind)
        self._write()
        if self.server == "h3cast":
            held = {"gap": viewer.longest("gap"), "connect": viewer.longest("connect")}
            held |= {"above": used.above, "cpu": used.cpu, "tcp": used.tcp or 0}
            broken = [f"{name}: {held[name]:.2f}, allowed {bound:.2f}" for name, bound in bounds.items() if held[name] > bound]
            assert not broken, f"{'; '.join(broken)}\n{json.dumps(self.told, indent=1)}"

    def tell(self, **figures: object) -> None:
        self.told |= figures

    def _write(self) -> None:
        """Into target/artifacts/attacks.json, in place of what an earlier run found."""
        ARTIFACTS.mkdir(parents=True, exist_ok=True)
        path = ARTIFACTS / "attacks.json"
        rows = json.loads(path.read_text()) if path.exists() else []
        key = {"attack": self.attack, "server": self.server}
        rows = [row for row in rows if {name: row[name] for name in key} != key]
        rows.append(key | self.told)
        path.write_text(json.dumps(sorted(rows, key=lambda row: (row["attack"], row["server"])), indent=1) + "\n")
        print(f"\n{self.attack} | {self.server} | " + ", ".join(f"{k} {v}" for k, v in self.told.items()))


def figures(used: Used, viewer: Viewer) -> dict:
    return {
        "idle_mib": round(used.idle / MIB, 1),
        "peak_mib": round(used.peak / MIB, 1),
        "cpu_seconds": round(used.cpu, 2),
        "seconds": round(used.seconds, 1),
        "tcp_mib": None if used.tcp is None else round(used.tcp / MIB, 2),
        "longest_gap": viewer.longest("gap"),
        "longest_connect": viewer.longest("connect"),
        "waits": viewer.waits,
    }


@pytest.fixture(params=list(SERVERS))
def row(request) -> Row:
    """Each test is one attack, named as its function is without `test_`, on both servers."""
    return Row(request.node.originalname.removeprefix("test_"), request.param)


def pytest_configure() -> None:
    # Thousands of connections are ours.
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
