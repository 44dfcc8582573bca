"""Everything that is counted, as Prometheus scrapes it: names, both formats, the dashboard and the alerts."""

import json
import pathlib
import re
import socket
import subprocess
import sys
import time
import urllib.request

import pytest
import yaml
from clients import LibCurl
from monitor import Prometheus, promtool
from prometheus_client.openmetrics.parser import text_string_to_metric_families as open_metrics
from prometheus_client.parser import text_string_to_metric_families as plain_text
from server import H3CAST, ROOT, Server, free_port

NATS_SERVER = pathlib.Path(sys.executable).with_name("nats-server")
MONITORING = ROOT / "docs/monitoring"
OPEN_METRICS = "application/openmetrics-text; version=1.0.0"
# Of Prometheus, not of ours.
ITS_OWN = {"up"}


def scraped(server: Server, accept: str = "*/*") -> tuple[str, str]:
    request = urllib.request.Request(f"{server.plain}/metrics", headers={"Accept": accept})
    with urllib.request.urlopen(request, timeout=20) as response:
        return response.headers["content-type"], response.read().decode()


class Viewers:
    """Viewers of a live feed over every transport and in every format that stock clients have."""

    def __init__(self, server: Server, path: str) -> None:
        h1 = ["curl", "--silent", "--no-buffer", "--http1.1"]
        commands = [
            [*h1, f"{server.plain}{path}"],
            [*h1, "--header", "Accept: text/event-stream", f"{server.plain}{path}"],
            [*h1, f"{server.plain}{path}?format=frames"],
            ["curl", "--silent", "--no-buffer", "--http2", "--cacert", server.cacert, server.base + path],
            [H3CAST, "get", server.base + path, "--cacert", server.cacert],
            [H3CAST, "get", "--webtransport", server.base + path, "--cacert", server.cacert],
        ]
        self.children = [subprocess.Popen(command, stdout=subprocess.DEVNULL) for command in commands]

    def stop(self) -> None:
        for child in self.children:
            child.kill()
            child.wait(timeout=15)


@pytest.fixture(scope="module")
def watched(tmp_path_factory):
    """A server with feeds of every kind, viewers over every transport, and a Prometheus that scrapes it."""
    folder = tmp_path_factory.mktemp("metrics")
    port = free_port()
    nats = subprocess.Popen(
        [NATS_SERVER, "-a", "127.0.0.1", "-p", str(port), "-js", "-sd", str(folder / "nats")],
        stderr=subprocess.DEVNULL,
    )
    viewers = prometheus = None
    try:
        end = time.monotonic() + 20
        while socket.socket().connect_ex(("127.0.0.1", port)):
            assert time.monotonic() < end and nats.poll() is None, "no nats-server"
            time.sleep(0.05)
        ticks = "ticks=exec:while sleep 0.05; do date; done"
        arguments = [ticks, "chat=publish", f"--engine=nats://127.0.0.1:{port}", "--ensure-stream", "--memory=2G"]
        with Server(*arguments) as server:
            try:
                publish = urllib.request.Request(f"{server.plain}/stream/chat", data=b"hello\n", method="POST")
                urllib.request.urlopen(publish, timeout=20).close()
                prometheus = Prometheus(folder, f"localhost:{server.http_port}", MONITORING / "alerts.yml")
                viewers = Viewers(server, "/stream/ticks")
                # One that has ended, and what is not there.
                assert LibCurl(server).request("/stream/nothing").status == 404
                yield server, prometheus
            finally:
                for running in filter(None, [viewers, prometheus]):
                    running.stop()
    finally:
        nats.terminate()
        nats.wait(timeout=15)


def exported(families) -> dict[str, tuple[str, frozenset[str]]]:
    """The type and the labels of each metric, by the name that it is documented with."""
    found = {}
    for family in families:
        name = family.name + {"counter": "_total", "info": "_info"}.get(family.type, "")
        kind = "gauge" if family.type == "info" else family.type
        labels = {label for sample in family.samples for label in sample.labels} - {"le"}
        found[name] = kind, frozenset(labels)
    return found


def documented() -> dict[str, tuple[str, frozenset[str]]]:
    text = (ROOT / "docs/operations.md").read_text()
    rows = re.findall(r"^\| `(\w+)` \| (gauge|counter|histogram) \| ([^|]*) \| [^|]+ \|$", text, re.MULTILINE)
    return {name: (kind, frozenset(re.findall(r"`(\w+)`", labels))) for name, kind, labels in rows}


def test_everything_is_documented_and_well_named(watched):
    server, _ = watched
    kind, text = scraped(server)
    assert kind.startswith("text/plain; version=0.0.4")
    promtool("check", "metrics", stdin=text)
    there = exported(plain_text(text))
    listed = documented()
    assert there == listed, (
        {name: there[name] for name in there if listed.get(name) != there[name]},
        {name: listed[name] for name in listed if listed[name] != there.get(name)},
    )


def test_open_metrics_has_the_same(watched):
    server, _ = watched
    kind, text = scraped(server, OPEN_METRICS)
    assert kind.startswith(OPEN_METRICS)
    # A strict parser: types, suffixes, units, the order of buckets, the end. promtool knows the text format only.
    families = list(open_metrics(text))
    assert exported(families) == exported(plain_text(scraped(server)[1]))
    assert {family.unit for family in families} == {"", "seconds", "bytes"}


def test_prometheus_sees_viewers_on_every_transport(watched):
    _, prometheus = watched
    for transport, count in [("http1", 3), ("http2", 1), ("http3", 1), ("webtransport", 1)]:
        # One of each format.
        prometheus.until(f'count(h3cast_viewers{{transport="{transport}"}} == 1) == {count}')
        prometheus.until(f'count(h3cast_sent_chunks_total{{transport="{transport}"}} > 5) == {count}')
        prometheus.until(f'h3cast_publish_to_send_seconds_count{{transport="{transport}"}} > 0')
    prometheus.until('h3cast_feed_viewers{feed="ticks"} == 6')
    prometheus.until('h3cast_http_requests_total{protocol="http3",status="4xx"} >= 1')
    prometheus.until('h3cast_http_requests_total{protocol="webtransport",status="2xx"} == 1')
    prometheus.until("h3cast_sessions == 1 and h3cast_sessions_opened_total == 1")
    prometheus.until('h3cast_http_connections{protocol="http2"} == 1')
    prometheus.until("h3cast_quic_rtt_seconds_count > 0 and h3cast_quic_sent_packets_total > 0")
    prometheus.until("h3cast_nats_connected == 1 and h3cast_nats_connections == 1")
    # In two weeks, as a certificate for localhost.
    prometheus.until("h3cast_certificate_not_after_seconds - time() > 9 * 86400")
    targets = prometheus.get("targets")["activeTargets"]
    assert [(target["health"], target["lastError"]) for target in targets] == [("up", "")]
    # Only OpenMetrics has units: it is what the two agreed on.
    assert [known["unit"] for known in prometheus.get("targets/metadata", metric="h3cast_feed_kept_bytes")] == ["bytes"]


def operands(expression: str) -> list[str]:
    """What an alert compares, which has samples also when it does not fire."""
    parts = re.split(r"\s(?:and|or|==|!=|<=|>=|<|>)\s", expression.replace("\n", " "))
    return [part for part in parts if re.search(r"[a-z]", part)]


def dashboard() -> list[str]:
    panels = json.loads((MONITORING / "grafana-dashboard.json").read_text())["panels"]
    return [target["expr"] for panel in panels for target in panel.get("targets", [])]


def alerts() -> list[dict]:
    groups = yaml.safe_load((MONITORING / "alerts.yml").read_text())["groups"]
    return [rule for group in groups for rule in group["rules"]]


def test_expressions_have_samples(watched):
    server, prometheus = watched
    shown = [
        expression.replace("$job", "h3cast").replace("$instance", ".*").replace("$__rate_interval", "1m")
        for expression in dashboard()
    ]
    alerting = [operand for rule in alerts() for operand in operands(rule["expr"])]
    names = set(exported(plain_text(scraped(server)[1])))
    series = names | {f"{name}{part}" for name in names for part in ("_bucket", "_sum", "_count")} | ITS_OWN
    for expression in [*shown, *alerting]:
        used = set(re.findall(r"\b(?:h3cast|process)_\w+|\bup\b", expression))
        assert used and used <= series, (expression, used - series)
        prometheus.until(expression)
    # Everything that is exported is on the dashboard or in an alert.
    everything = " ".join([*shown, *alerting])
    assert not [name for name in names if name not in everything]
    rules = [rule for group in prometheus.get("rules")["groups"] for rule in group["rules"]]
    assert len(rules) == len(alerts())
    assert not [(rule["name"], rule["lastError"]) for rule in rules if rule.get("lastError")]


def test_each_alert_fires_when_it_should_and_only_then():
    promtool("check", "rules", "alerts.yml", folder=MONITORING)
    promtool("test", "rules", "alerts.test.yml", folder=MONITORING)
    tests = yaml.safe_load((MONITORING / "alerts.test.yml").read_text())["tests"]
    checks = [check for test in tests for check in test["alert_rule_test"]]
    for rule in alerts():
        outcomes = {bool(check["exp_alerts"]) for check in checks if check["alertname"] == rule["alert"]}
        assert outcomes == {True, False}, rule["alert"]
