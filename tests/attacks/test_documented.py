"""docs/security.md and these tests name the same attacks."""

import pathlib
import re

import table


def test_documented():
    here = pathlib.Path(__file__).parent
    tests = {name for file in here.glob("test_*.py") for name in re.findall(r"^def test_(\w+)\(row\b", file.read_text(), re.M)}
    assert len(tests) > 5 and tests == table.documented()
    rows = [{"attack": name, "server": "caddy", "died": "caddy ended with 137"} for name in tests]
    assert table.written(table.DOCUMENT.read_text(), rows).count("caddy ended with 137") == len(tests)
