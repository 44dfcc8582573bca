"""The limits that the other tests are made under do limit, whichever there are here; and the server finds its own."""

import pathlib
import subprocess
import sys
import time

import confined
import pytest
from confined import MIB, Confined, can_be_a_cgroup
from peers import address, begin
from victim import H3cast
from viewer import Viewer

KINDS = ["cgroup", "prlimit"] if can_be_a_cgroup() else ["prlimit"]
LIMIT = 256 * MIB


@pytest.mark.parametrize("kind", KINDS)
def test_a_limit_is_kept(kind):
    limited = Confined(64 * MIB, descriptors=100, kind=kind)
    try:
        taking = "import os, resource; text = b'x' * ({} << 20); print(resource.getrlimit(resource.RLIMIT_NOFILE))"
        codes = []
        for size in (16, 200):
            command = limited.wrap([sys.executable, "-c", taking.format(size)])
            done = subprocess.run(command, capture_output=True, text=True, timeout=30)
            codes.append(done.returncode)
            assert "(100, 100)" in done.stdout or size == 200, done
        if kind == "prlimit":
            assert codes == [0, 1] and "MemoryError" in done.stderr and limited.killed() == 0, (codes, done)
        else:
            assert codes == [0, -9] and limited.killed() == 1 and limited.peak() >= 60 * MIB, (codes, done)
    finally:
        limited.close()


def test_without_a_cgroup():
    """A small attack under prlimit, for machines that have nothing else."""
    with H3cast(confined={"kind": "prlimit"}) as victim, Viewer(victim) as viewer:
        assert victim.confined.kind == "prlimit"
        victim.begin()
        silent = [begin(victim.address, address(number)) for number in range(300)]
        time.sleep(1)
        for sock in silent:
            sock.close()
        used = victim.end()
    assert used.tcp is None and used.above < 32 * MIB, used
    assert viewer.longest("gap") <= 2 and viewer.longest("connect") <= 2, viewer.waits


def memory_of(**limits) -> float:
    with H3cast(confined=limits) as victim:
        return victim.metric("h3cast_memory_limit_bytes")


def machine() -> int:
    line = next(line for line in pathlib.Path("/proc/meminfo").read_text().splitlines() if line.startswith("MemTotal"))
    return int(line.split()[1]) * 1024


def share(limit: int) -> int:
    """What `--memory` is by default."""
    return limit // 100 * 75


@pytest.mark.skipif(not can_be_a_cgroup(), reason="no cgroup can be made here")
def test_the_server_finds_its_cgroups_limit():
    assert memory_of(limit=LIMIT) == share(LIMIT)
    # Nested: the limit around it holds, whether its own is larger or none.
    outer = Confined(LIMIT)
    try:
        for own in (2 * LIMIT, LIMIT // 2, None):
            inner = Confined(own, inside=outer)
            try:
                assert memory_of(like=inner) == share(min(own or LIMIT, LIMIT)), own
            finally:
                inner.close()
    finally:
        outer.close()


def test_without_a_limit_it_is_the_machines():
    assert memory_of(kind="prlimit") <= share(machine())
    if can_be_a_cgroup():
        # The limits around us, if there are any, are less.
        assert memory_of(limit=None) == memory_of(kind="prlimit")


def test_version_2_by_its_files(tmp_path, monkeypatch):
    """Not the kernel's: a folder with files as version 2 has them, where that cannot be mounted."""
    (tmp_path / "cgroup.procs").write_text("")
    monkeypatch.setattr(confined, "ROOT", tmp_path)
    monkeypatch.setattr(confined, "_own", lambda controller: "/")
    limited = Confined(LIMIT, kind="cgroup")
    folder = limited.folder
    assert limited.kind == "cgroup v2" and (folder / "memory.max").read_text() == str(LIMIT)
    (folder / "memory.stat").write_text("anon 5\nsock 7000\n")
    (folder / "memory.events").write_text("oom 2\noom_kill 1\n")
    (folder / "memory.peak").write_text("9000\n")
    assert (limited.tcp(), limited.killed(), limited.peak()) == (7000, 1, 9000)
    subprocess.run(limited.wrap(["true"]), check=True)
    assert int((folder / "cgroup.procs").read_text()) > 1
    for file in folder.iterdir():
        file.unlink()
    limited.close()
    assert not folder.exists()
