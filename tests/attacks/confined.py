"""A memory limit for a process, and what it used of it: a cgroup (version 1 or 2), or prlimit where there is none."""

import os
import pathlib
import subprocess
import time

MIB = 1 << 20
LIMIT = int(os.environ.get("H3CAST_ATTACK_MEMORY", 1 << 30))
# `prlimit` does without a cgroup where there is one, so that it is known to work.
KIND = os.environ.get("H3CAST_ATTACK_CONFINED", "cgroup")
ROOT = pathlib.Path("/sys/fs/cgroup")


def _own(controller: str) -> str:
    """This process's group in the hierarchy of a controller; of version 2 for the empty name."""
    for line in pathlib.Path("/proc/self/cgroup").read_text().splitlines():
        _, controllers, path = line.split(":", 2)
        if controller in controllers.split(",") if controller else not controllers:
            return path
    return "/"


def _places(mount: pathlib.Path, own: str) -> list[pathlib.Path]:
    """This process's own group and those around it, innermost first: a limit around us keeps counting."""
    place = pathlib.PurePosixPath(own)
    return [mount / str(folder).lstrip("/") for folder in [place, *place.parents]]


class Confined:
    """`wrap` what shall run under the limit; `close` once it has ended."""

    count = 0

    def __init__(
        self,
        limit: int | None = LIMIT,
        descriptors: int | None = None,
        kind: str = KIND,
        inside: "Confined | None" = None,
        like: "Confined | None" = None,
    ) -> None:
        """Limits of bytes, and of open files if one is given; a group `inside` another; or in another's group."""
        self.limit, self.descriptors, self._owner = limit, descriptors, like is None
        self.folder: pathlib.Path | None = None
        Confined.count += 1
        name = f"h3cast-attacks-{os.getpid()}-{Confined.count}"
        self.kind = "prlimit"
        if like:
            self.limit, self.kind, self.folder = like.limit, like.kind, like.folder
        if kind == "prlimit" or like:
            return
        if inside:
            self.kind = inside.kind
            assert self._made(inside.kind, inside.folder / name)
            return
        for kind, places in [
            ("cgroup v1", _places(ROOT / "memory", _own("memory"))),
            ("cgroup v2", _places(ROOT, _own(""))),
        ]:
            if any(self._made(kind, place / name) for place in places):
                self.kind = kind
                break

    def _made(self, kind: str, folder: pathlib.Path) -> bool:
        if not (folder.parent / "cgroup.procs").exists():
            return False
        try:
            folder.mkdir()
        except OSError:
            return False
        try:
            if self.limit is None:
                pass
            elif kind == "cgroup v1":
                (folder / "memory.limit_in_bytes").write_text(str(self.limit))
                self._try(folder / "memory.memsw.limit_in_bytes", str(self.limit))
                # Without a limit of its own, the memory of sockets is not counted.
                self._try(folder / "memory.kmem.tcp.limit_in_bytes", str(self.limit))
            else:
                (folder / "memory.max").write_text(str(self.limit))
                self._try(folder / "memory.swap.max", "0")
        except OSError:
            folder.rmdir()
            return False
        self.folder = folder
        return True

    @staticmethod
    def _try(path: pathlib.Path, text: str) -> None:
        try:
            path.write_text(text)
        except OSError:
            pass

    def wrap(self, command: list[str]) -> list[str]:
        """A command that enters the limit, then becomes `command`: its process id is the one that is started."""
        if self.descriptors is not None:
            command = ["prlimit", f"--nofile={self.descriptors}", "--", *command]
        if self.folder is None:
            return command if self.limit is None else ["prlimit", f"--data={self.limit}", "--", *command]
        return ["sh", "-c", 'echo $$ >"$0" && exec "$@"', str(self.folder / "cgroup.procs"), *command]

    def tcp(self) -> int | None:
        """What its TCP sockets hold in the kernel, in bytes."""
        if self.kind == "cgroup v1":
            return int((self.folder / "memory.kmem.tcp.usage_in_bytes").read_text())
        if self.kind == "cgroup v2":
            return self._stat("memory.stat", "sock")
        return None

    def peak(self) -> int | None:
        """The most that the group has used, kernel and page cache included."""
        names = {"cgroup v1": "memory.max_usage_in_bytes", "cgroup v2": "memory.peak"}
        try:
            return int((self.folder / names[self.kind]).read_text())
        except (OSError, KeyError):
            return None

    def killed(self) -> int:
        """How many of its processes the kernel has killed because the limit was reached."""
        name = {"cgroup v1": "memory.oom_control", "cgroup v2": "memory.events"}.get(self.kind)
        return (self._stat(name, "oom_kill") or 0) if name else 0

    def _stat(self, file: str, key: str) -> int | None:
        for line in (self.folder / file).read_text().splitlines():
            name, value = line.split()
            if name == key:
                return int(value)
        return None

    def close(self) -> None:
        # A process that has just ended may still be in it.
        for _ in range(100):
            try:
                if self.folder and self._owner:
                    self.folder.rmdir()
                return
            except OSError:
                time.sleep(0.05)


def can_be_a_cgroup() -> bool:
    confined = Confined()
    confined.close()
    return confined.folder is not None


if __name__ == "__main__":
    confined = Confined()
    print(confined.kind, confined.folder)
    subprocess.run(confined.wrap(["cat", "/proc/self/cgroup"]), check=True)
    print(confined.peak(), confined.tcp(), confined.killed())
    confined.close()
