"""One row of the table in docs/security.md: an attack, a server under a memory limit, and viewers beside it."""

import json
import os
import pathlib
import resource
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest
from confined import MIB
from victim import SERVERS, TARGET, Died, Used
from viewer import Viewer

ARTIFACTS = pathlib.Path(os.environ.get("H3CAST_ARTIFACTS", TARGET / "artifacts"))

# Nothing is asserted of Caddy, whose figures are for comparison: they are measured when asked for.
COMPARED = tuple(SERVERS) if os.environ.get("H3CAST_ATTACK_CADDY") else ("h3cast",)

WRITING = threading.Lock()


class Row:
    """An attack on h3cast, and with H3CAST_ATTACK_CADDY=1 on Caddy. Bounds are promises of h3cast alone."""

    def __init__(self, attack: str) -> None:
        self.attack = attack
        # What is known of each server, by its name.
        self.told: dict[str, dict[str, object]] = {name: {} for name in SERVERS}

    def run(
        self,
        act: Callable,
        *arguments: str,
        bulk: bool = False,
        files: bool = False,
        together: bool = False,
        servers: tuple[str, ...] = COMPARED,
        sources: tuple[str, ...] = (),
        viewer: dict | None = None,
        confined: dict | None = None,
        **bounds: float,
    ) -> dict:
        """Starts each server, h3cast with `arguments`, attacks it with `act(victim)`, which may return figures of
        its own, and compares h3cast with the bounds: `gap`, `connect` and `publish`, the longest waits of a viewer
        or publisher in seconds; `above`, bytes more than when idle; `cpu`, seconds of CPU; `tcp`, bytes in the
        kernel. An attack that mostly waits is made on both servers at once, `together`; one that Caddy has nothing
        like is made on h3cast alone. `sources` are more feeds of h3cast, `viewer` is what viewers do besides (see
        `Viewer`), and `confined` are limits other than the usual ones. Returns what is known of h3cast."""
        made, viewer = {"bulk": bulk, "files": files, "sources": sources, "confined": confined}, viewer or {}
        with ThreadPoolExecutor(2 if together else 1) as threads:
            runs = [threads.submit(self._attack, name, act, arguments, made, viewer, bounds) for name in servers]
            for run in runs:
                run.result()
        return self.told["h3cast"]

    def _attack(
        self, name: str, act: Callable, arguments: tuple[str, ...], made: dict, options: dict, bounds: dict
    ) -> None:
        told = self.told[name]
        try:
            with SERVERS[name](*arguments, **made) as victim, Viewer(victim, **options) as viewer:
                victim.begin()
                try:
                    told |= act(victim) or {}
                except Exception:
                    # If it has died, this is why. Its connections are reset before it can be seen to have ended.
                    victim.alive(patience=2)
                    raise
                used = victim.end()
        except Died as died:
            if name == "h3cast":
                raise
            told["died"] = str(died).splitlines()[0]
            return self._write(name)
        told |= figures(used, viewer) | {"limit_mib": victim.confined.limit // MIB, "confined": victim.confined.kind}
        self._write(name)
        if name == "h3cast":
            held = {what: viewer.longest(what) for what in ("gap", "connect", "connect_h3", "publish")}
            held |= {"above": used.above, "cpu": used.cpu, "tcp": used.tcp or 0}
            broken = [f"{what}: {held[what]:.2f}, allowed {bound:.2f}" for what, bound in bounds.items() if held[what] > bound]
            assert not broken, f"{'; '.join(broken)}\n{json.dumps(told, indent=1)}"

    def _write(self, name: str) -> None:
        """Into target/artifacts/attacks.json, in place of what an earlier run found."""
        with WRITING:
            ARTIFACTS.mkdir(parents=True, exist_ok=True)
            path = ARTIFACTS / "attacks.json"
            rows = json.loads(path.read_text()) if path.exists() else []
            key = {"attack": self.attack, "server": name}
            rows = [row for row in rows if {field: row[field] for field in key} != key]
            rows.append(key | self.told[name])
            path.write_text(json.dumps(sorted(rows, key=lambda row: (row["attack"], row["server"])), indent=1) + "\n")
        told = ", ".join(f"{what} {value}" for what, value in self.told[name].items() if what != "waits")
        print(f"\n{self.attack} | {name} | {told}")


def figures(used: Used, viewer: Viewer) -> dict:
    return {
        "idle_mib": round(used.idle / MIB, 1),
        "peak_mib": round(used.peak / MIB, 1),
        "cpu_seconds": round(used.cpu, 2),
        "seconds": round(used.seconds, 1),
        "tcp_mib": None if used.tcp is None else round(used.tcp / MIB, 2),
        "longest_gap": viewer.longest("gap"),
        "longest_connect": viewer.longest("connect"),
        "longest_publish": viewer.longest("publish"),
        "waits": viewer.waits,
    }


@pytest.fixture
def row(request) -> Row:
    """Each test is one attack, named as its function is without `test_`."""
    return Row(request.node.originalname.removeprefix("test_"))


def pytest_configure() -> None:
    # Thousands of connections are ours.
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
