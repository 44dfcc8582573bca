"""The figures of the last run as they are in docs/security.md.

python table.py           prints them
python table.py --write   puts them there"""

import json
import os
import pathlib
import re
import sys

ROOT = pathlib.Path(__file__).resolve().parents[2]
TARGET = ROOT / os.environ.get("CARGO_TARGET_DIR", "target")
FOUND = pathlib.Path(os.environ.get("H3CAST_ARTIFACTS", TARGET / "artifacts")) / "attacks.json"
DOCUMENT = ROOT / "docs/security.md"
# The row of an attack: what stands there whatever a run finds, and one cell for each server.
ROW = re.compile(r"^(\| `(\w+)` \| [^|]* \| [^|]* \|) ([^|]*?) ?\| ([^|]*?) ?\|$", re.M)
# Their victims hold bytes in the kernel.
TCP = {"viewers_that_do_not_read", "large_files"}


def cell(row: dict) -> str:
    """What one server did in one attack."""
    if "died" in row:
        return row["died"]
    memory = f"{row['peak_mib'] - row['idle_mib']:.0f} MiB"
    if row["attack"] in TCP and row["tcp_mib"] is not None:
        memory += f", {row['tcp_mib']:.0f} MiB in the kernel"
    waits = [row["longest_connect"], row["longest_gap"], *filter(None, [row.get("longest_publish")])]
    return f"{memory}; {row['cpu_seconds']:.1f} s CPU; {', '.join(f'{wait:.2f} s' for wait in waits)}"


def written(text: str, rows: list[dict]) -> str:
    cells = {(row["attack"], row["server"]): cell(row) for row in rows}

    def fill(match: re.Match) -> str:
        # What a run has not found stays.
        of = {server: cells.get((match[2], server), old) for server, old in (("h3cast", match[3]), ("caddy", match[4]))}
        return f"{match[1]} {of['h3cast']} | {of['caddy']} |"

    return ROW.sub(fill, text)


def documented() -> set[str]:
    """The attacks that have a row."""
    return {match[2] for match in ROW.finditer(DOCUMENT.read_text())}


if __name__ == "__main__":
    text = written(DOCUMENT.read_text(), json.loads(FOUND.read_text()))
    if sys.argv[1:] == ["--write"]:
        DOCUMENT.write_text(text)
    print("\n".join(match[0] for match in ROW.finditer(text)))
