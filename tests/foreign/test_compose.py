"""compose.yaml: what it starts in containers is started here without them, with the same flags."""

import json
import os
import re
import shlex
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml
from server import H3CAST

ROOT = Path(__file__).resolve().parent.parent.parent
COMPOSE = yaml.safe_load((ROOT / "compose.yaml").read_text())
NATS_SERVER = Path(sys.executable).with_name("nats-server")
# As the comment at the top of the file gives it.
TOKEN = re.search(r"--token (\S+)$", (ROOT / "compose.yaml").read_text(), re.MULTILINE)[1]
PATIENCE_S = 40


def free_ports(count):
    held = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [server.getsockname()[1] for server in held]
    for server in held:
        server.close()
    return ports


class Composed:
    """The services, each at ports of its own where they have addresses of their own."""

    def __init__(self, folder):
        self.folder, self.running, self.edges = folder, [], {}
        names = list(COMPOSE["services"])
        self.ports = {(name, port): free for port in (4222, 6222, 4433)
                      for name, free in zip(names, free_ports(len(names)), strict=True)}

    def here(self, name, text):
        """What a service says of addresses and folders, as it is here."""
        text = text.replace("0.0.0.0:", f"{name}:").replace("/data", str(self.folder / name))
        return re.sub(r"([a-z]+-\d):(\d+)", lambda m: f"127.0.0.1:{self.ports[m[1], int(m[2])]}", text)

    def start(self):
        for name, service in COMPOSE["services"].items():
            words = shlex.split(self.here(name, service["command"]))
            if name.startswith("nats-"):
                command = [NATS_SERVER, "-a", "127.0.0.1", "-p", str(self.ports[name, 4222]), *words]
                self.running.append(subprocess.Popen(command, stderr=subprocess.DEVNULL))
        for name, service in COMPOSE["services"].items():
            if name.startswith("edge-"):
                self.start_edge(name, service)

    def start_edge(self, name, service):
        folder = self.folder / name
        folder.mkdir()
        environment = {key: self.here(name, value) for key, value in service["environment"].items()}
        command = [H3CAST, *shlex.split(service["command"])]
        until = time.monotonic() + PATIENCE_S
        # As `restart: unless-stopped` does while the cluster has no leader.
        assert service["restart"] == "unless-stopped"
        while time.monotonic() < until:
            process = subprocess.Popen(command, env=os.environ | environment, cwd=folder, text=True,
                                       stdout=subprocess.PIPE, stderr=subprocess.PIPE)
            if (ready := process.stdout.readline()).startswith("ready "):
                self.running.append(process)
                self.edges[name] = f"https://127.0.0.1:{self.ports[name, 4433]}"
                return
            said = process.communicate()[1]
            time.sleep(0.5)
        pytest.fail(f"{name} does not start: {ready}{said}")

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
