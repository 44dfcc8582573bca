"""The manifests in docs/kubernetes: by the schemas of Kubernetes, and by what they start, without containers."""

import copy
import json
import os
import re
import socket
import subprocess
import sys
import time
from pathlib import Path

import kubernetes_validate
import pytest
import yaml
from server import H3CAST, Server, free_ports

ROOT = Path(__file__).resolve().parent.parent.parent
FOLDER = ROOT / "docs/kubernetes"
# The oldest of these that Kubernetes' own schemas are bundled for and that has autoscaling/v2, and the newest.
VERSIONS = ["1.27.0", "1.37.0"]


def manifests():
    return [document for name in ("nats.yaml", "edges.yaml")
            for document in yaml.safe_load_all((FOLDER / name).read_text())]


def one(kind, name):
    return next(document for document in manifests()
                if (document["kind"], document["metadata"]["name"]) == (kind, name))


def container(workload):
    [found] = workload["spec"]["template"]["spec"]["containers"]
    return found


@pytest.mark.parametrize("version", VERSIONS)
def test_the_schemas_are_met(version):
    found = manifests()
    assert len(found) == 7
    for document in found:
        kubernetes_validate.validate(document, version, strict=True)
    wrong = copy.deepcopy(one("Deployment", "h3cast"))
    container(wrong)["readinesProbe"] = container(wrong).pop("readinessProbe")
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(wrong, version, strict=True)


def environment(folder):
    """What the edge's container has, with files that are here."""
    stated = {entry["name"]: entry.get("value", "password") for entry in container(one("Deployment", "h3cast"))["env"]}
    stated = {name: value.replace("$(EDGE_PASSWORD)", "password") for name, value in stated.items()}
    stated |= {"H3CAST_CERT": str(folder / "cert.pem"), "H3CAST_KEY": str(folder / "key.pem")}
    return os.environ | stated | {"H3CAST_PUBLISH_TOKEN": "a-token-of-some-length"}


def test_an_edge_accepts_its_settings(tmp_path):
    words = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=cast.example",
             "-addext", "subjectAltName=DNS:cast.example", "-keyout", str(tmp_path / "key.pem"),
             "-out", str(tmp_path / "cert.pem")]
    subprocess.run(words, check=True, capture_output=True)
    command = [H3CAST, *container(one("Deployment", "h3cast"))["args"], "--check"]
    checked = subprocess.run(command, env=environment(tmp_path), cwd=tmp_path, capture_output=True, timeout=60)
    assert (checked.returncode, checked.stdout) == (0, b"ok\n"), checked.stderr


def test_probes_are_answered_as_the_kubelet_asks():
    """Over TLS that it does not check, at the address of the pod and without a name; and scraped likewise."""
    probed = container(one("Deployment", "h3cast"))
    paths = {probed[probe]["httpGet"]["path"] for probe in ("startupProbe", "livenessProbe", "readinessProbe")}
    assert paths == {"/healthz", "/readyz"}
    with Server("demo") as server:
        for path in [*paths, "/metrics"]:
            url = f"https://127.0.0.1:{server.port}{path}"
            asked = subprocess.run(["curl", "-sSf", "--http1.1", "--insecure", "-H", f"Host: 10.0.0.7:{server.port}", url],
                                   capture_output=True, text=True, timeout=30)
            assert asked.returncode == 0, asked.stderr
            if path == "/metrics":
                metric = one("HorizontalPodAutoscaler", "h3cast")["spec"]["metrics"][0]["pods"]["metric"]["name"]
                assert re.search(rf"^{metric}{{", asked.stdout, re.MULTILINE)
                [rule] = yaml.safe_load((FOLDER / "prometheus-adapter.yaml").read_text())["rules"]["custom"]
                assert rule["seriesQuery"].startswith(metric)


def test_an_edge_has_time_to_drain():
    pod = one("Deployment", "h3cast")["spec"]["template"]["spec"]
    drain = next(entry["value"] for entry in container(one("Deployment", "h3cast"))["env"]
                 if entry["name"] == "H3CAST_DRAIN")
    probe = container(one("Deployment", "h3cast"))["readinessProbe"]
    # First it is seen to be unready; then connections are closed.
    assert int(drain.removesuffix("s")) >= probe["periodSeconds"] * probe["failureThreshold"]
    assert pod["terminationGracePeriodSeconds"] >= int(drain.removesuffix("s")) + 10
    startup = container(one("Deployment", "h3cast"))["startupProbe"]
    assert startup["periodSeconds"] * startup["failureThreshold"] >= 60


PASSWORDS = {f"{user}_PASSWORD": "x" for user in ("EDGE", "READER", "ADMIN", "SYSTEM")}


def nats_server(folder, **more):
    """The command of a server's container, with files that are here."""
    known = {"/etc/h3cast/nats.conf": str(ROOT / "docs/nats/nats.conf"), "/data": str(folder / "data"),
             "/tmp/nats.pid": str(folder / "pid"), "$(POD_NAME)": "nats-0"} | more
    args = container(one("StatefulSet", "nats"))["args"]
    return [Path(sys.executable).with_name("nats-server"), *(known.get(arg, arg) for arg in args)]


def test_the_nats_servers_accept_their_settings(tmp_path):
    assert all(name in (FOLDER / "nats.yaml").read_text() for name in PASSWORDS)
    tested = subprocess.run([*nats_server(tmp_path), "-t"], env=os.environ | PASSWORDS, capture_output=True, text=True,
                            timeout=30)
    assert tested.returncode == 0, tested.stderr


def test_a_nats_server_without_its_peers_has_not_started_but_is_alive(tmp_path):
    client, route, peer, monitor = (str(port) for port in free_ports(4))
    routes = next(arg for arg in nats_server(tmp_path) if "nats-0.nats" in str(arg))
    words = nats_server(tmp_path, **{"8222": monitor, "nats://0.0.0.0:6222": f"nats://127.0.0.1:{route}",
                                     routes: f"nats://127.0.0.1:{route},nats://127.0.0.1:{peer}"})
    command = [*words, "-a", "127.0.0.1", "-p", client]
    probed = container(one("StatefulSet", "nats"))

    def status(probe):
        url = f"http://127.0.0.1:{monitor}{probed[probe]['httpGet']['path']}"
        return subprocess.run(["curl", "-sS", "-w", "\n%{http_code}", url], capture_output=True, text=True,
                              timeout=30).stdout[-3:]

    server = subprocess.Popen(command, env=os.environ | PASSWORDS, stderr=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + 30
        # Nothing tells when it has begun to look for its peers.
        while status("startupProbe") != "503":
            assert time.monotonic() < deadline
            time.sleep(0.1)
        assert status("livenessProbe") == "200"
        assert "js-enabled-only=true" in probed["livenessProbe"]["httpGet"]["path"]
    finally:
        server.kill()
        server.wait()


def test_a_nats_server_has_its_clients_leave_before_it_ends(tmp_path):
    """What the kubelet does: the preStop command, then SIGTERM."""
    client, monitor = (str(port) for port in free_ports(2))
    words = nats_server(tmp_path, **{"8222": monitor})
    # By itself: a server of a cluster would wait for the others.
    alone = [word for word in words if "nats-0.nats" not in str(word) and word not in ("--routes", "--cluster")]
    alone.remove("nats://0.0.0.0:6222")
    program, *before = container(one("StatefulSet", "nats"))["lifecycle"]["preStop"]["exec"]["command"]
    assert program == "nats-server"
    before = [word.replace("/tmp/nats.pid", str(tmp_path / "pid")) for word in before]
    server = subprocess.Popen([*alone, "-a", "127.0.0.1", "-p", client], env=os.environ | PASSWORDS,
                              stderr=subprocess.DEVNULL)
    try:
        edge = connected(int(client))
        subprocess.run([words[0], *before], check=True, timeout=30)
        server.terminate()
        # Clients are told, and served until they have had time to leave.
        while b'"ldm":true' not in (line := edge.readline()):
            assert line, "it ended"
        edge.write(b"PING\r\n")
        edge.flush()
        assert edge.readline() == b"PONG\r\n"
        assert server.poll() is None
    finally:
        server.kill()
        server.wait()


def connected(port):
    """A client that has logged in, once the server listens."""
    deadline = time.monotonic() + 30
    while True:
        try:
            connection = socket.create_connection(("127.0.0.1", port), timeout=30)
            break
        except OSError:
            assert time.monotonic() < deadline
            time.sleep(0.05)
    edge = connection.makefile("rwb")
    assert edge.readline().startswith(b"INFO ")
    login = {"user": "edge", "pass": PASSWORDS["EDGE_PASSWORD"], "verbose": False, "protocol": 1, "lang": "x", "version": "1"}
    edge.write(f"CONNECT {json.dumps(login)}\r\nPING\r\n".encode())
    edge.flush()
    while (line := edge.readline()) != b"PONG\r\n":
        assert line, "it ended"
    return edge


def test_a_nats_server_has_time_for_its_clients_to_leave():
    stated = re.search(r"^lame_duck_duration: (\d+)s$", (ROOT / "docs/nats/nats.conf").read_text(), re.MULTILINE)
    pod = one("StatefulSet", "nats")["spec"]["template"]["spec"]
    # Before that it waits for 10 s, if it is not told otherwise.
    assert pod["terminationGracePeriodSeconds"] >= int(stated[1]) + 10 + 10


def test_nothing_runs_as_root():
    for workload in (one("StatefulSet", "nats"), one("Deployment", "h3cast")):
        assert workload["spec"]["template"]["spec"]["securityContext"]["runAsNonRoot"] is True
        assert container(workload)["securityContext"]["allowPrivilegeEscalation"] is False
