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
# The row of an attack, without its last two cells.
ROW = re.compile(r"^(\| `(\w+)` \| [^|]* \| [^|]* \|)[^|]*\|[^|]*\|$", re.M)


def cell(row: dict) -> str:
    """What one server did in one attack."""
    if "died" in row:
        return row["died"]
    memory = f"{row['peak_mib'] - row['idle_mib']:.0f} MiB"
    if row["attack"] == "viewers_that_do_not_read" and row["tcp_mib"] is not None:
        memory += f", {row['tcp_mib']:.0f} MiB in the kernel"
    return f"{memory}; {row['cpu_seconds']:.1f} s CPU; {row['longest_connect']:.2f} s, {row['longest_gap']:.2f} s"


def written(text: str, rows: list[dict]) -> str:
    cells = {(row["attack"], row["server"]): cell(row) for row in rows}

    def fill(match: re.Match) -> str:
        return f"{match[1]} {cells.get((match[2], 'h3cast'), '')} | {cells.get((match[2], 'caddy'), '')} |"

    return ROW.sub(fill, text)


def documented() -> set[str]:
    """The attacks that have a row."""
    return {match[2] for match in ROW.finditer(DOCUMENT.read_text())}


if __name__ == "__main__":
    text = written(DOCUMENT.read_text(), json.loads(FOUND.read_text()))
    if sys.argv[1:] == ["--write"]:
        DOCUMENT.write_text(text)
    print("\n".join(match[0] for match in ROW.finditer(text)))
