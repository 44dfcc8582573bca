"""Prometheus and promtool, as Debian packages them. No service is started: each test runs its own."""

import json
import pathlib
import shutil
import subprocess
import time
import urllib.parse
import urllib.request

from server import free_port

SECONDS = 120


def tool(name: str) -> str:
    program = shutil.which(name)
    assert program, f"there is no {name}: tests/run debian installs it"
    return program


def promtool(*arguments: str, stdin: str | None = None, folder: pathlib.Path | None = None) -> str:
    """What promtool prints; it has to be content."""
    ran = subprocess.run(
        [tool("promtool"), *arguments], input=stdin, capture_output=True, text=True, cwd=folder, timeout=SECONDS
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr
    return ran.stdout + ran.stderr


class Prometheus:
    """Scrapes one server, and evaluates rules."""

    def __init__(self, folder: pathlib.Path, target: str, rules: pathlib.Path) -> None:
        self.base = f"http://127.0.0.1:{free_port()}"
        self.log = folder / "prometheus.log"
        config = folder / "prometheus.yml"
        config.write_text(
            json.dumps(
                {
                    "global": {"scrape_interval": "500ms", "scrape_timeout": "500ms", "evaluation_interval": "1s"},
                    "rule_files": [str(rules)],
                    "scrape_configs": [{"job_name": "h3cast", "static_configs": [{"targets": [target]}]}],
                }
            )
        )
        promtool("check", "config", str(config))
        with open(self.log, "wb") as log:
            self._child = subprocess.Popen(
                [
                    tool("prometheus"),
                    f"--config.file={config}",
                    f"--storage.tsdb.path={folder / 'prometheus'}",
                    f"--web.listen-address={self.base.removeprefix('http://')}",
                ],
                stdout=log,
                stderr=log,
            )

    def get(self, path: str, **query: str) -> dict:
        url = f"{self.base}/api/v1/{path}?{urllib.parse.urlencode(query)}"
        with urllib.request.urlopen(url, timeout=SECONDS) as response:
            return json.load(response)["data"]

    def query(self, expression: str) -> list:
        """The samples of an expression now."""
        data = self.get("query", query=expression)
        return [data["result"]] if data["resultType"] == "scalar" else data["result"]

    def until(self, expression: str) -> list:
        """Waits until an expression has samples."""
        end = time.monotonic() + SECONDS
        found = []
        while not found:
            assert time.monotonic() < end, f"no sample of {expression} in {SECONDS} s\n{self.log.read_text()[-4000:]}"
            assert self._child.poll() is None, self.log.read_text()[-4000:]
            time.sleep(0.1)
            try:
                found = self.query(expression)
            except OSError:
                # It has not started yet.
                continue
        return found

    def stop(self) -> None:
        self._child.terminate()
        try:
            self._child.wait(timeout=15)
        except subprocess.TimeoutExpired:
            self._child.kill()
            raise
