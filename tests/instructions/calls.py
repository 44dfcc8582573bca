"""System calls that a publication takes: the program serves standard input to one viewer over HTTP/3, under strace.

Each line is published once the viewer has the one before. What is counted is what more lines take: the difference of two
runs, so that neither the start nor the end is in it."""

import os
import re
import subprocess
import tempfile
from collections import Counter
from pathlib import Path

LINE = b"fifteen letters\n"
# Lines of the two runs.
FEW, MANY = 100, 500
PUBLISHED = MANY - FEW
# A run takes a second or two.
SECONDS = 60


def count(program: Path) -> tuple[int, Counter[str]]:
    """How many calls more lines take, and how many of each kind."""
    few, many = run(program, FEW), run(program, MANY)
    calls = Counter({name: many[name] - few[name] for name in many if many[name] > few[name]})
    return calls.total(), calls


def run(program: Path, lines: int) -> Counter[str]:
    with tempfile.TemporaryDirectory(prefix="calls-") as scratch:
        summary = Path(scratch, "calls")
        environment = {"PATH": os.environ.get("PATH", os.defpath), "HOME": scratch}
        options = {"cwd": scratch, "env": environment, "stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}
        # One worker, so that it does not depend on which are idle how many are woken.
        serve = [str(program), "serve", "-", "--listen", "localhost:0", "--http", "off", "--workers", "1", "--grace", "0s"]
        strace = ["timeout", str(SECONDS), "strace", "-f", "-c", "-U", "name,calls", "-o", str(summary)]
        with subprocess.Popen([*strace, *serve], stdin=subprocess.PIPE, **options) as server:
            address = re.search(rb"https://[^/\s]+", server.stdout.readline())
            if not address:
                raise RuntimeError("the server did not start")
            get = [str(program), "get", f"{address[0].decode()}/stream?from=start", "--insecure"]
            with subprocess.Popen(["timeout", str(SECONDS), *get], **options) as viewer:
                for _ in range(lines):
                    server.stdin.write(LINE)
                    server.stdin.flush()
                    if viewer.stdout.read(len(LINE)) != LINE:
                        raise RuntimeError("the viewer has lost its feed")
                viewer.terminate()
            # To the whole process group of timeout, which strace passes on.
            server.terminate()
        rows = re.findall(r"^\s*(\w+)\s+(\d+)\s*$", summary.read_text(), re.MULTILINE)
        return Counter({name: int(calls) for name, calls in rows if name != "total"})
