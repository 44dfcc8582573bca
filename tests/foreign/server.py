"""Starts the real server binaries on free ports and stops them again, everything with a deadline."""

import json
import os
import pathlib
import queue
import re
import signal
import socket
import subprocess
import tempfile
import threading
import time

ROOT = pathlib.Path(__file__).resolve().parents[2]
TARGET = ROOT / os.environ.get("CARGO_TARGET_DIR", "target")
H3CAST = os.environ.get("H3CAST_BIN", str(TARGET / "release/h3cast"))
BY_HAND = os.environ.get("H3CAST_BY_HAND", str(TARGET / "debug/examples/by_hand"))
WEBTRANSPORT = os.environ.get("H3CAST_WEBTRANSPORT", str(TARGET / "debug/examples/webtransport"))
# Answers that handlers get wrong: crates/transport/tests/parity.
PARITY = os.environ.get("H3CAST_PARITY", str(TARGET / "debug/examples/parity"))


def free_port() -> int:
    """A port that was free: programs of others do not say which one they have."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return listener.getsockname()[1]


def free_ports(count):
    held = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [server.getsockname()[1] for server in held]
    for server in held:
        server.close()
    return ports


class Server:
    """A running server; `with Server() as server:` asserts that it also stops well."""

    def __init__(
        self, *arguments: str, by_hand: bool = False, webtransport: bool = False, parity: bool = False
    ) -> None:
        example = BY_HAND if by_hand else WEBTRANSPORT if webtransport else PARITY if parity else None
        # The server heeds both signals; the examples, which are kept short, only Ctrl-C.
        self._signal = signal.SIGINT if example else signal.SIGTERM
        self._folder = tempfile.TemporaryDirectory(prefix="h3cast-certs-")
        self.certs = pathlib.Path(self._folder.name)
        self.cacert = str(self.certs / "cert.pem")
        command = [example] if example else [H3CAST, "serve"]
        command += ["--listen", "localhost:0", "--http", "localhost:0", "--certs", self._folder.name]
        self._stderr = tempfile.NamedTemporaryFile("w+")
        self._child = subprocess.Popen(
            command + list(arguments),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._stderr,
            text=True,
            # Its notes are not for the tester.
            env=os.environ | {"XDG_RUNTIME_DIR": str(TARGET / "run")},
        )
        self._lines: queue.Queue[str | None] = queue.Queue()
        threading.Thread(target=self._read, daemon=True).start()
        try:
            # The program puts plain HTTP first, the examples put it second.
            announced = [self.line(r"(https?)://localhost:(\d+)/") for _ in range(2)]
            ports = {match[1]: int(match[2]) for match in announced}
            self.port, self.http_port = ports["https"], ports["http"]
        except BaseException:
            self._child.kill()
            raise
        self.base = f"https://localhost:{self.port}"
        self.plain = f"http://localhost:{self.http_port}"

    def _read(self) -> None:
        for line in self._child.stdout:
            self._lines.put(line.rstrip("\n"))
        self._lines.put(None)

    def _log(self) -> str:
        self._stderr.seek(0)
        return self._stderr.read()[-16384:]

    def logged(self, pattern: str, seconds: float = 15) -> str:
        """Waits for a line of the log that matches; gives the whole log."""
        end = time.monotonic() + seconds
        while not re.search(pattern, log := pathlib.Path(self._stderr.name).read_text()):
            assert time.monotonic() < end, f"no line {pattern!r} in {seconds} s\n{log}"
            time.sleep(0.02)
        return log

    def line(self, pattern: str, seconds: float = 15) -> re.Match:
        """Takes the next line of standard output that matches."""
        while True:
            try:
                line = self._lines.get(timeout=seconds)
            except queue.Empty:
                raise AssertionError(f"no line {pattern!r} in {seconds} s\n{self._log()}") from None
            assert line is not None, f"the server ended before a line {pattern!r}\n{self._log()}"
            if match := re.search(pattern, line):
                return match

    def write(self, line: str) -> None:
        """Makes one chunk of a server driven by hand."""
        self._child.stdin.write(line + "\n")
        self._child.stdin.flush()

    def end_feed(self) -> None:
        self._child.stdin.close()

    def identity(self) -> dict:
        printed = subprocess.run(
            [H3CAST, "cert", "--json", "--certs", str(self.certs)], capture_output=True, check=True, timeout=15
        )
        return json.loads(printed.stdout)

    def stop(self) -> None:
        self._child.send_signal(self._signal)
        try:
            code = self._child.wait(timeout=15)
        except subprocess.TimeoutExpired:
            self._child.kill()
            raise AssertionError(f"{self._signal.name} did not end the server in 15 s\n{self._log()}") from None
        log = self._log()
        assert code == 0, f"exit code {code}\n{log}"
        assert "panicked at" not in log, log
        self._folder.cleanup()

    def __enter__(self) -> "Server":
        return self

    def __exit__(self, kind, *_: object) -> None:
        if kind is None:
            self.stop()
        else:
            self._child.kill()
            self._child.wait(timeout=15)
            self._folder.cleanup()
