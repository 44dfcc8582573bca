"""Makes docs/performance.md and its chart from measured.json, the rounds that `compare` has measured.

A part (`fan-out`) has runs: the latest of all its servers, and those of some servers alone. A run has
either the rounds of each server, in groups (`200` viewers), or, from before rounds were kept, its tables.
Chart, goals and claims read what the tables show, so that nothing is stated that was not printed.
"""

import difflib
import json
import pathlib
import re
import statistics

from chart import svg

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parent.parent
DATA, PAGE, CHART = HERE / "measured.json", ROOT / "docs/performance.md", ROOT / "docs/performance.svg"

CPU, P50, P99 = "server/cpu_us_per_chunk", "latency_us/p50", "latency_us/p99"
RSS, PEAK = "server/rss_bytes_per_viewer", "server/rss_peak_bytes_per_viewer"
SPEED, USED = "bytes_per_s", "server/cpu_s"
CPU_HEAD, PEAK_HEAD, RSS_HEAD = "CPU a chunk, µs", "peak RSS a viewer, KiB", "RSS a viewer, KiB"


def load():
    return json.loads(DATA.read_text()) if DATA.exists() else {"parts": {}}


def save(data):
    DATA.write_text(json.dumps(data, indent=1, ensure_ascii=False) + "\n")


def add(data, part, run):
    """A run takes the place of those it covers: all of the part, or those of the same servers alone."""
    runs = data["parts"].setdefault(part, [])
    if run["only"]:
        runs[:] = [other for other in runs if not other["only"] or set(other["only"]) != set(run["only"])]
        runs.append(run)
    else:
        runs[:] = [run]


# Figures of rounds, as cells of a table

def take(results, path):
    return [result[path] for result in results if result and path in result]


def cell(results, path, scale=1, digits=2):
    values = [value * scale for value in take(results, path)]
    if not values:
        return "–"
    if len(values) == 1:
        return f"{values[0]:.{digits}f}"
    return f"{statistics.median(values):.{digits}f} ({min(values):.{digits}f}–{max(values):.{digits}f})"


def ratio(some, others, path):
    """The median ratio of the rounds, with its spread: each round against the same one of the others."""
    pairs = [(a[path], b[path]) for a, b in zip(some, others) if a and b and path in a and b.get(path)]
    ratios = [a / b for a, b in pairs]
    if not ratios:
        return "–"
    spread = f" ({min(ratios):.2f}–{max(ratios):.2f})" if len(ratios) > 1 and some is not others else ""
    return f"{statistics.median(ratios):.2f}{spread}"


def against(found, peer, base, path):
    return ratio(found[peer], found[base], path) if base in found and peer in found else "–"


def rows(found, *columns):
    """A row for each server; `columns` are what to call with it, or with its results."""
    return [[peer, *(column(peer) for column in columns)] for peer in found]


def show(found, path, *how):
    return lambda peer: cell(found[peer], path, *how)


def beside(found, base, path):
    return lambda peer: against(found, peer, base, path)


def fan_out(groups, where="one thread"):
    for group, found in groups.items():
        yield group, f"16 bytes every 10 ms to {group} viewers, {where}", [
            "server", CPU_HEAD, "× quinn", "× h3", "× Caddy", "× quic-go", "p50, ms", "p99, ms", PEAK_HEAD], rows(
            found, show(found, CPU), beside(found, "quinn", CPU), beside(found, "h3", CPU), beside(found, "caddy", CPU),
            beside(found, "quic-go", CPU), show(found, P50, 1e-3), show(found, P99, 1e-3), show(found, PEAK, 1 / 1024, 0))


def fan_out_tcp(groups):
    for group, found in groups.items():
        yield group, f"The same over TCP and TLS (HTTP/2, HTTP/1.1) to {group} viewers, one thread", [
            "server", CPU_HEAD, "× its HTTP/3", "× Caddy", "× nginx", "p50, ms", "p99, ms", PEAK_HEAD], rows(
            found, show(found, CPU), lambda peer: against(found, peer, re.sub("-h[12]$", "", peer), CPU),  # noqa: B023
            lambda peer: against(found, peer, "caddy" + peer[-3:], CPU),  # noqa: B023
            lambda peer: against(found, peer, "nginx" + peer[-3:], CPU),  # noqa: B023
            show(found, P50, 1e-3), show(found, P99, 1e-3), show(found, PEAK, 1 / 1024, 0))


def threads(groups):
    for group, found in groups.items():
        if group == "500":
            yield group, "16 bytes every 10 ms to 500 viewers, two threads", ["server", CPU_HEAD, "× quinn", "p99, ms"], rows(
                found, show(found, CPU), beside(found, "quinn", CPU), show(found, P99, 1e-3))
        else:
            yield group, "h3cast to 200 viewers with one thread and with two", ["threads", CPU_HEAD, "× one thread", "p99, ms"], rows(
                found, show(found, CPU), beside(found, "1", CPU), show(found, P99, 1e-3))


def growth(groups):
    """From few viewers to many, and the two factors of it: the time between two chunks, and how many viewers there are."""
    counts = [group for group in groups if group.isdigit()]
    if not counts:
        return
    few, last = groups[counts[0]], groups[counts[-1]]
    slow = groups.get("200, 250 ms", {})
    middle = groups.get("5000", {})
    named = lambda count: f"{int(count):,}"  # noqa: E731
    head = ["server", *(f"{named(count)}: {CPU_HEAD}" for count in counts), "ratio, 5,000", f"ratio, {named(counts[-1])}"]
    title = f"Growth: 20,000 chunks a second to 200 viewers and to {named(counts[-1])}"
    yield "growth", title, head, [
        [peer, *(cell(groups[count].get(peer, []), CPU) for count in counts), ratio(middle.get(peer, []), few[peer], CPU),
         ratio(last.get(peer, []), few[peer], CPU)] for peer in few]
    if slow and middle:
        yield "factors", "What growth is made of: 250 ms between two chunks, and 5,000 viewers", [
            "server", f"200 viewers, every 250 ms: {CPU_HEAD}", "× 200 viewers, every 10 ms", "5,000 × 200 viewers, every 250 ms"], [
            [peer, cell(slow[peer], CPU), ratio(slow[peer], few.get(peer, []), CPU), ratio(middle.get(peer, []), slow[peer], CPU)]
            for peer in slow]


def bulk(groups, size="1 GiB"):
    found = groups["1"]
    yield "1", f"A file of {size} to one viewer", ["server", "MiB/s", "× quinn", "× Caddy", "CPU, s"], rows(
        found, show(found, SPEED, 2**-20, 0), beside(found, "quinn", SPEED), beside(found, "caddy", SPEED), show(found, USED))


def bulk_tcp(groups, size="1 GiB"):
    found = groups["1"]
    same = lambda name, path: lambda peer: against(found, peer, f"{name}-file{peer[-3:]}", path)  # noqa: E731
    yield "1", f"A file of {size} over TCP and TLS, read by curl", [
        "server", "MiB/s", "CPU, s", "CPU × Caddy", "CPU × nginx"], rows(
        found, show(found, SPEED, 2**-20, 0), show(found, USED), same("caddy", USED), same("nginx", USED))


def latency(groups):
    found, stalled = groups["0"], groups.get("10", {})
    yield "1000", "From publication to arrival: 16 bytes every 50 ms to 1,000 viewers", [
        "server", "p50, ms", "p99, ms", "p99 × quinn", "p99 with 10 % stalled, ms", "ratio"], rows(
        found, show(found, P50, 1e-3), show(found, P99, 1e-3), beside(found, "quinn", P99),
        lambda peer: cell(stalled.get(peer, []), P99, 1e-3), lambda peer: ratio(stalled.get(peer, []), found[peer], P99))


def idle(groups):
    found = groups["5000"]
    yield "5000", "Memory of 5,000 viewers of a feed with a chunk every 5 s", ["server", RSS_HEAD, "× quinn"], rows(
        found, show(found, RSS, 1 / 1024, 1), beside(found, "quinn", RSS))


def handshakes(groups):
    found = groups["1000"]
    yield "1000", "1,000 handshakes at once", [
        "server", "handshakes/s", "× quinn", "lost", "all had their first bytes after, s"], rows(
        found, show(found, "handshakes_per_s", 1, 0), beside(found, "quinn", "handshakes_per_s"),
        lambda peer: str(sum(1000 - connected for connected in take(found[peer], "connected"))), show(found, "connected_in_s"))


def early_data(groups):
    found = groups["10"]
    yield "10", "First chunk over a round trip of 40 ms, HTTP/3 GET", ["", "p50, ms", "× cold"], rows(
        found, show(found, "first_chunk_us/p50", 1e-3, 1), beside(found, "cold", "first_chunk_us/p50"))


TABLES = {"fan-out": fan_out, "fan-out-tcp": fan_out_tcp, "threads": threads, "growth": growth, "bulk": bulk, "bulk-tcp": bulk_tcp,
          "latency": latency, "idle": idle, "handshakes": handshakes, "early-data": early_data}


def tables(part, run):
    if "tables" in run:
        return [(table["group"], table["title"], table["head"], table["rows"]) for table in run["tables"]]
    more = {"size": f"{run['mib']} MiB"} if "mib" in run else {}
    return [(*names, head, body) for *names, head, body in TABLES[part](run["groups"], **more) if body]


def markdown(head, body):
    # A column in which nobody has a figure says nothing.
    shown = [n for n in range(len(head)) if n == 0 or any(row[n] not in ("–", "") for row in body)]
    lines = [[head[n] for n in shown], ["---"] * len(shown), *([row[n] for n in shown] for row in body)]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines) + "\n"


def section(part, run):
    """A run's tables, each with when and how it was measured."""
    rounds = "1 round" if run["rounds"] == 1 else f"{run['rounds']} rounds"
    how = f"{run['date']}, {rounds}" + (", these servers alone" if run["only"] else "")
    how += f"; the load was {run['load']} when it began" if "load" in run else ""
    how += f". {run['note']}" if run.get("note") else "."
    alone = f" ({', '.join(run['only'])})" if run["only"] else ""
    return "".join(f"### {title}{alone}\n\n{how}\n\n{markdown(head, body)}\n" for _, title, head, body in tables(part, run))


def locate(data, part, group, server, column):
    """What the table shows there, median, least and most, and its run; None without it. A run of all servers comes
    before those of some, in which a ratio is one, too."""
    for run in sorted(data["parts"].get(part, []), key=lambda run: bool(run["only"])):
        for name, _, head, body in tables(part, run):
            if name != group or column not in head:
                continue
            for row in body:
                if row[0] == server and row[head.index(column)] != "–":
                    return [float(number) for number in re.findall(r"[\d.]+", row[head.index(column)])], run
    return None


def median(data, *where):
    found = locate(data, *where)
    return found[0][0] if found else None


def over_caddy(data, group):
    """In the latest run of all servers, the ratio of the rounds if the table has it, or else that of the medians."""
    run = next(run for run in data["parts"]["fan-out"] if not run["only"])
    data = {"parts": {"fan-out": [run]}}
    found = median(data, "fan-out", group, "h3cast", "× Caddy")
    ours, theirs = (median(data, "fan-out", group, name, CPU_HEAD) for name in ("h3cast", "caddy"))
    return found or (ours / theirs if ours and theirs else None)


def last_growth(data):
    """How many viewers the latest whole run of growth ended with, the ratio to 200, and the run."""
    for run in data["parts"].get("growth", []):
        for group, title, head, body in tables("growth", run):
            if group == "growth" and not run["only"]:
                named = re.search(r"to ([\d,]+)$", title)[1]
                ours = next(row for row in body if row[0] == "h3cast")
                return named, float(ours[-1].split()[0]), run
    raise SystemExit("the data has no whole run of growth")


def summary(data):
    """The first screen: what to expect, in five sentences, and the chart."""
    get = lambda *where: median(data, *where)  # noqa: E731
    fan = lambda server, column: get("fan-out", "200", server, column)  # noqa: E731
    many, grown, _ = last_growth(data)
    date = next(run["date"] for run in data["parts"]["fan-out"] if not run["only"])
    cpu = fan("h3cast", CPU_HEAD)
    sentences = [
        f"A chunk of 16 bytes costs **{cpu:.1f} µs of CPU** for each of 200 viewers over HTTP/3, on one thread (measured on {date}).",
        f"That is {fan('h3cast', '× quinn'):.2f} × bare QUIC without HTTP (quinn), {fan('h3cast', '× h3'):.2f} × the plain h3 crates, "
        f"and **{over_caddy(data, '200'):.2f} × Caddy**, which is a proxy there.",
        f"Half of the chunks arrive within {fan('h3cast', 'p50, ms'):.1f} ms of their publication, and 99 % within "
        f"{fan('h3cast', 'p99, ms'):.1f} ms, with client and server on the same two cores.",
        f"With {many} viewers, as many chunks a second take {grown:.1f} times the CPU that they take with 200.",
        f"A waiting viewer takes {get('idle', '5000', 'h3cast', RSS_HEAD):.0f} KiB of memory, and a file over HTTP/3 arrives at "
        f"{get('bulk', '1', 'h3cast', 'MiB/s'):.0f} MiB/s, **{get('bulk', '1', 'h3cast', '× Caddy'):.2f} times as fast as through Caddy**.",
    ]
    alt = f"CPU a chunk to 200 viewers: h3cast {cpu:.1f} µs; the table below has all figures"
    return "\n".join(sentences) + f"\n\n![{alt}]({CHART.name})\n"


# What was aimed at: the goal, its limit (negative: at least), and where the figure is
GOALS = [
    ("fan-out over HTTP/3 to 200 viewers, CPU × bare quinn", "≤", 1.1, ("fan-out", "200", "h3cast", "× quinn")),
    ("… to 500 viewers", "≤", 1.1, ("fan-out", "500", "h3cast", "× quinn")),
    ("… to 200 viewers × plain h3", "≤", 0.75, ("fan-out", "200", "h3cast", "× h3")),
    ("… to 200 viewers × quic-go", "≤", 0.35, ("fan-out", "200", "h3cast", "× quic-go")),
    ("fan-out over WebTransport to 200 viewers, CPU × bare quinn", "≤", 1.1, ("fan-out", "200", "h3cast-webtransport", "× quinn")),
    ("… to 500 viewers", "≤", 1.1, ("fan-out", "500", "h3cast-webtransport", "× quinn")),
    ("two threads × one, 200 viewers", "≤", 1.1, ("threads", "200", "2", "× one thread")),
    ("CPU a chunk with the most viewers × that with 200", "≤", 1.3, "growth"),
    ("1 GiB over HTTP/3, speed × bare quinn", "≥", 0.97, ("bulk", "1", "h3cast", "× quinn")),
    ("… × Caddy", "≥", 1.5, ("bulk", "1", "h3cast", "× Caddy")),
    ("a file over HTTP/2, CPU × Caddy's file server", "≤", 1.0, ("bulk-tcp", "1", "h3cast-h2", "CPU × Caddy")),
    ("a file over HTTP/1.1, CPU × Caddy's file server", "≤", 1.0, ("bulk-tcp", "1", "h3cast-h1", "CPU × Caddy")),
    ("p99 at 1,000 viewers × bare quinn", "≤", 1.2, ("latency", "1000", "h3cast", "p99 × quinn")),
    ("the same with a tenth of them stalled × without", "≤", 1.1, ("latency", "1000", "h3cast", "ratio")),
    ("peak memory of one of 500 viewers, KiB", "≤", 60, ("fan-out", "500", "h3cast", PEAK_HEAD)),
    ("memory of one of 5,000 idle viewers, KiB", "≤", 42, ("idle", "5000", "h3cast", RSS_HEAD)),
    ("1,000 handshakes at once, a second × bare quinn", "≥", 0.97, ("handshakes", "1000", "h3cast", "× quinn")),
    ("… lost", "≤", 0, ("handshakes", "1000", "h3cast", "lost")),
    ("first chunk with 0-RTT × cold", "≤", 0.55, ("early-data", "10", "0-RTT", "× cold")),
]


def goals(data):
    body = []
    for goal, sign, limit, where in GOALS:
        if where == "growth":
            _, value, run = last_growth(data)
        elif found := locate(data, *where):
            value, run = found[0][0], found[1]
        else:
            body.append([goal, f"{sign} {limit}", "not measured yet", "", ""])
            continue
        met = value <= limit if sign == "≤" else value >= limit
        body.append([goal, f"{sign} {limit}", f"{value:g}", "yes" if met else "**no**", f"{run['date']}, {run['rounds']}"])
    return "## Goals and results\n\n" + markdown(["goal", "aim", "result", "met", "measured, rounds"], body) + "\n"


def claims(data):
    """What other documents state about speed: the file, and the words that must be in it."""
    get = lambda *where: median(data, *where)  # noqa: E731
    fan = lambda group: get("fan-out", group, "h3cast", CPU_HEAD)  # noqa: E731
    many, grown, _ = last_growth(data)
    return [
        ("README.md", f"{over_caddy(data, '200'):.2f} times the CPU that Caddy takes as a proxy"),
        ("README.md", f"a large file over HTTP/3 arrives {get('bulk', '1', 'h3cast', '× Caddy'):.2f} times as fast"),
        ("docs/operations.md", f"{fan('200'):.1f} µs a delivery to 200 viewers and {fan('500'):.1f} µs to 500"),
        ("docs/operations.md", f"{grown:.1f} times as much with {many}"),
    ]


def measured(data):
    """The part of the page between its markers."""
    runs = [(part, run) for part in TABLES for run in data["parts"].get(part, [])]
    machines = {}
    for _, run in runs:
        machines.setdefault(run["machine"], set()).add(run["date"])
    told = "".join(f"- {' and '.join(sorted(dates))}: {machine}\n" for machine, dates in machines.items())
    text = ("## Tables\n\nMedian of the rounds (least–most); a ratio is the median of what each round gives. "
            "Where two tables have different dates, only ratios within one can be compared. Machines and versions:\n\n"
            + told + "\n" + "".join(section(part, run) for part, run in runs) + goals(data))
    body = [[f"`{file}`", words] for file, words in claims(data)]
    return text + "## Claims elsewhere\n\n" + markdown(["document", "what it states, and `compare --check` looks for"], body) + "\n"


def chart(data):
    for run in data["parts"]["fan-out"]:
        if not run["only"]:
            for group, title, head, body in tables("fan-out", run):
                if group == "200":
                    at = head.index(CPU_HEAD)
                    bars = [(row[0], [float(number) for number in re.findall(r"[\d.]+", row[at])]) for row in body]
                    return svg(f"CPU for one chunk to one viewer, in µs: {title}", f"{run['date']}, median of {run['rounds']} rounds", bars)
    raise SystemExit("the data has no whole run of fan-out")


def made(data):
    """Page and chart as they should be."""
    page = PAGE.read_text()
    for name, text in {"summary": summary(data), "measured": measured(data)}.items():
        before, rest = page.split(f"<!-- {name} -->")
        page = f"{before}<!-- {name} -->\n\n{text}\n<!-- /{name} -->".replace("\n\n\n", "\n\n") + rest.split(f"<!-- /{name} -->")[1]
    return {PAGE: page, CHART: chart(data)}


def write():
    for file, text in made(load()).items():
        file.write_text(text)
    return missing()


def missing():
    """1, and a line for each claim that the data no longer gives."""
    lost = [(file, words) for file, words in claims(load()) if words not in (ROOT / file).read_text()]
    for file, words in lost:
        print(f"{file}: it should state “{words}”, as the data gives it")
    return 1 if lost else 0


def check():
    """1 if page, chart or a claim is not what the data gives."""
    failed = missing()
    for file, text in made(load()).items():
        old = file.read_text() if file.exists() else ""
        if old != text:
            failed = 1
            print(f"{file.name} is not what measured.json gives; run benches/peers/compare --write:")
            print("\n".join(list(difflib.unified_diff(old.splitlines(), text.splitlines(), lineterm="", n=0))[:20]))
    if not failed:
        print(f"{PAGE.name}, {CHART.name} and {len(claims(load()))} claims are what measured.json gives")
    return failed
