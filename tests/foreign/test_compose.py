"""compose.yaml: what it starts in containers is started here without them, with the same flags."""

import json
import os
import re
import shlex
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml
from server import H3CAST, free_ports

ROOT = Path(__file__).resolve().parent.parent.parent
COMPOSE = yaml.safe_load((ROOT / "compose.yaml").read_text())
NATS_SERVER = Path(sys.executable).with_name("nats-server")
# As the comment at the top of the file gives it.
TOKEN = re.search(r"--token (\S+)$", (ROOT / "compose.yaml").read_text(), re.MULTILINE)[1]
PATIENCE_S = 40


class Composed:
    """The services, each at ports of its own where they have addresses of their own."""

    def __init__(self, folder):
        self.folder, self.running, self.starting, self.edges = folder, [], {}, {}
        names = [name for name in COMPOSE["services"] if name != "folders"]
        places = [(name, port) for port in (4222, 6222, 8222, 4433) for name in names]
        self.ports = dict(zip(places, free_ports(len(places)), strict=True))

    def here(self, name, text):
        """What a service says of addresses and folders, as it is here."""
        text = text.replace("0.0.0.0:", f"{name}:").replace("/data", str(self.folder / name))
        text = text.replace("/etc/h3cast/", f"{ROOT}/docs/nats/").replace("/var/lib/h3cast", str(self.folder / "certs"))
        text = re.sub(r"-m 8222|127\.0\.0\.1:8222", lambda m: m[0].replace("8222", str(self.ports[name, 8222])), text)
        return re.sub(r"([a-z]+-\d):(\d+)", lambda m: f"127.0.0.1:{self.ports[m[1], int(m[2])]}", text)

    def start(self):
        # The edges first: they wait for the cluster.
        for name, service in COMPOSE["services"].items():
            if name.startswith("edge-"):
                self.start_edge(name, service)
        for name, service in COMPOSE["services"].items():
            if not name.startswith("nats-"):
                continue
            words = shlex.split(self.here(name, service["command"]))
            command = [NATS_SERVER, "-a", "127.0.0.1", "-p", str(self.ports[name, 4222]), *words]
            environment = os.environ | service["environment"]
            self.running.append(subprocess.Popen(command, env=environment, stderr=subprocess.DEVNULL))
        for name, process in self.starting.items():
            if not (ready := process.stdout.readline()).startswith("ready "):
                pytest.fail(f"{name} does not start: {ready}{process.communicate()[1]}")
            self.edges[name] = f"https://127.0.0.1:{self.ports[name, 4433]}"

    def start_edge(self, name, service):
        folder = self.folder / name
        folder.mkdir()
        command = [H3CAST, *shlex.split(service["command"])]
        process = subprocess.Popen(command, env=self.environment(name), cwd=folder, text=True,
                                   stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        self.running.append(process)
        self.starting[name] = process

    def environment(self, name):
        stated = COMPOSE["services"][name]["environment"]
        state = {"XDG_STATE_HOME": str(self.folder / name)}
        return os.environ | {key: self.here(name, value) for key, value in stated.items()} | state

    def stop(self):
        for process in self.running:
            process.kill()
            process.communicate()


@pytest.fixture
def composed(tmp_path):
    services = Composed(tmp_path)
    try:
        services.start()
        yield services
    finally:
        services.stop()


def h3cast(*words, **more):
    return subprocess.run([H3CAST, *words], capture_output=True, timeout=PATIENCE_S, **more)


def fetched(*words):
    return subprocess.run(["curl", *words], capture_output=True, text=True, timeout=PATIENCE_S)


def test_the_settings_of_each_edge_are_accepted_as_they_are():
    """Elsewhere they are rewritten for loopback, where more is allowed."""
    for name, service in COMPOSE["services"].items():
        if name.startswith("edge-"):
            environment = os.environ | service["environment"]
            checked = h3cast(*shlex.split(service["command"]), "--check", env=environment)
            assert (checked.returncode, checked.stdout) == (0, b"ok\n"), f"{name}: {checked.stderr}"


def test_what_is_published_to_one_edge_is_at_another(composed):
    """With the two commands that its first lines give."""
    url = "{}/stream/chat".format
    assert sorted(composed.edges) == ["edge-1", "edge-2", "edge-3"]
    one, three = composed.edges["edge-1"], composed.edges["edge-3"]
    refused = h3cast("publish", url(one), "--insecure", "--token", "wrong", input=b"no\n")
    assert refused.returncode != 0
    published = h3cast("publish", url(one), "--insecure", "--token", TOKEN, input=b"one\ntwo\n")
    assert published.returncode == 0, published.stderr
    got = h3cast("get", url(three) + "?from=start&limit=2", "--insecure", "--resume")
    assert (got.returncode, got.stdout) == (0, b"one\ntwo\n"), got.stderr


def test_each_service_is_healthy_by_its_own_check(composed):
    """What `healthcheck` asks in the containers."""
    for name, service in COMPOSE["services"].items():
        if name == "folders":
            continue
        kind, program, *words = service["healthcheck"]["test"]
        assert kind == "CMD"
        words = [composed.here(name, word) for word in words]
        if name.startswith("edge-"):
            assert program == "h3cast"
            asked = h3cast(*words, env=composed.environment(name), cwd=composed.folder / name)
            assert asked.returncode == 0 and asked.stdout.endswith(b"ready\n"), asked
        else:
            # BusyBox has a wget of its own; here its URL is asked for.
            assert program == "wget"
            # Edges need two of three, so one may still start; `start_period` allows for that.
            deadline = time.monotonic() + PATIENCE_S
            while (asked := fetched("-sSf", words[-1])).returncode != 0:
                assert time.monotonic() < deadline, asked
                time.sleep(0.1)
            assert json.loads(asked.stdout)["status"] == "ok", asked


def test_nothing_but_folders_runs_as_root():
    dockerfile = (ROOT / "Dockerfile").read_text()
    assert re.search(r"^USER 65534:65534$", dockerfile, re.MULTILINE)
    for name, service in COMPOSE["services"].items():
        user = service.get("user", "65534:65534" if name.startswith("edge-") else "root")
        assert user == ("0:0" if name == "folders" else "65534:65534"), name


def test_the_edges_share_a_certificate(composed):
    shown = {subprocess.run([H3CAST, "cert", "--json"], env=composed.environment(name), cwd=composed.folder / name,
                            capture_output=True, check=True).stdout for name in composed.edges}
    assert len(shown) == 1
    for name in composed.edges:
        trusted = composed.folder / "certs" / "certs" / "cert.pem"
        url = f"{composed.edges[name].replace('127.0.0.1', 'localhost')}/healthz"
        asked = ["curl", "-sSf", "--cacert", str(trusted), url]
        assert subprocess.run(asked, capture_output=True, timeout=PATIENCE_S).stdout == b"ok\n", name


def published(service):
    """The ports by which clients reach a service: of each protocol, and in the container."""
    return [re.fullmatch(r"(\d+):(\d+)/(udp|tcp)", port).groups() for port in service["ports"]]


def test_clients_are_told_the_ports_that_they_use(composed):
    """Through a mapping like that of each edge, which carries UDP and TCP alike."""
    for name in composed.edges:
        ports = published(COMPOSE["services"][name])
        assert len({(outside, inside) for outside, inside, _ in ports}) == 1
        assert sorted(protocol for *_, protocol in ports) == ["tcp", "udp"]
        outside, inside, _ = ports[0]
        assert COMPOSE["services"][name]["environment"]["H3CAST_LISTEN"].endswith(f":{inside}")
        base = f"https://localhost:{outside}"
        # What docker does with packets, curl does here with the connection.
        mapped = ["--connect-to", f"localhost:{outside}:127.0.0.1:{composed.ports[name, int(inside)]}"]
        curl = ["curl", "-sS", "--insecure", "--max-time", "20", *mapped]
        info = json.loads(subprocess.run([*curl, f"{base}/info"], capture_output=True, check=True).stdout)
        named = [info["webtransport"]["url"], info["http3"]["url"], *(feed["url"] for feed in info["feeds"])]
        assert named == [f"{base}/stream", f"{base}/", f"{base}/stream/chat"]
        head = subprocess.run([*curl, "--head", f"{base}/"], capture_output=True, check=True, text=True).stdout.lower()
        assert f'alt-svc: h3=":{outside}"' in head
        assert f"connect-src 'self' {base};" in head
