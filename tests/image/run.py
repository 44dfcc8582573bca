"""The image without a daemon: what is sent for it, that the program is built from that, and that the program runs as the
image has it. What it is built on, and `docker build` itself, are not part of it.
"""

import json
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import tempfile
import time

from docker.utils.build import exclude_paths
from dockerfile_parse import DockerfileParser

ROOT = pathlib.Path(__file__).resolve().parents[2]
TARGET = pathlib.Path(os.environ.get("TARGET", ROOT / "target"))
PROGRAM = pathlib.Path(os.environ["H3CAST_BIN"])
# What must never be sent, though it may lie about.
PLANTED = ["certs/key.pem", "src/key.pem", "crates/feed/secret.key", ".env", "target/debug/x", "static/target/x",
           ".git/config", "tokens.txt", "examples/plain/target/x"]


def context(folder):
    """A copy of what is sent for the image."""
    listed = subprocess.run(["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"], cwd=ROOT,
                            check=True, stdout=subprocess.PIPE)
    everything = pathlib.Path(folder, "everything")
    for name in filter(None, listed.stdout.decode().split("\0")):
        if (ROOT / name).is_file():
            (everything / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, everything / name)
    for name in PLANTED:
        (everything / name).parent.mkdir(parents=True, exist_ok=True)
        (everything / name).write_text("a secret\n")
    patterns = [line.strip() for line in (ROOT / ".dockerignore").read_text().splitlines()]
    patterns = [line for line in patterns if line and not line.startswith("#")]
    sent = pathlib.Path(folder, "sent")
    for name in exclude_paths(str(everything), patterns):
        if (everything / name).is_file():
            (sent / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(everything / name, sent / name)
    return sent


def check_context(sent):
    names = {str(path.relative_to(sent)) for path in sent.rglob("*") if path.is_file()}
    leaked = [name for name in PLANTED if name in names]
    assert not leaked, f"sent, and should not be: {leaked}"
    tops = {name.split("/")[0] for name in names}
    allowed = {"Cargo.toml", "Cargo.lock", "build.rs", "src", "static", "crates", "examples", "tests", "Dockerfile",
               ".dockerignore"}
    assert tops <= allowed, f"more is sent than is built: {tops - allowed}"
    env = {**os.environ, "CARGO_TARGET_DIR": str(TARGET)}
    subprocess.run(["cargo", "check", "--quiet", "--locked", "--offline", "--bin", "h3cast"], cwd=sent, env=env, check=True)
    print(f"{len(names)} files are sent, and the program is built from them")


def described():
    """What the Dockerfile says of the last stage, by instruction."""
    with tempfile.TemporaryDirectory() as folder:
        shutil.copy(ROOT / "Dockerfile", folder)
        parsed = DockerfileParser(folder)
        steps, stage = [(step["instruction"], step["value"]) for step in parsed.structure], {}
        for instruction, value in steps:
            if instruction == "FROM":
                stage = {}
            stage.setdefault(instruction, []).append(value)
        env = dict(parsed.envs)
    return stage, env


def check_description(stage, env):
    user = stage["USER"][-1]
    assert user.split(":")[0].isdigit() and user.split(":")[0] != "0", f"it runs as {user}"
    assert stage["EXPOSE"] == ["4433/tcp 4433/udp"], stage["EXPOSE"]
    assert stage["STOPSIGNAL"] == ["SIGTERM"] and stage["VOLUME"] == ["/var/lib/h3cast"]
    text = (ROOT / "Dockerfile").read_text()
    for word in ["TOKEN", "SECRET", "PASSWORD", "PUBLISH"]:
        assert not any(word in name for name in env) and f"ARG {word}" not in text, f"a secret in a layer: {word}"
    print("the Dockerfile keeps its promises")


# As root of a namespace of its own: nothing can be written but the volume, and no port is in use.
SCRIPT = """
set -e
mount --make-rprivate /
mount -t tmpfs tmpfs /usr/local/bin
install -m 755 "$PROGRAM" /usr/local/bin/h3cast
mount -t tmpfs tmpfs /var/lib
mkdir -m 700 /var/lib/h3cast
mount -t tmpfs -o mode=700,uid=65534,gid=65534 tmpfs /var/lib/h3cast
mount -o remount,bind,ro /usr/local/bin
mount -o remount,bind,ro /var/lib
mount -o remount,bind,ro /
python3 - <<'END'
import fcntl, socket, struct
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
flags = struct.unpack("16sh", fcntl.ioctl(s, 0x8913, struct.pack("16sh", b"lo", 0)))[1]
fcntl.ioctl(s, 0x8914, struct.pack("16sh", b"lo", flags | 1))
END
cd /var/lib/h3cast
exec setpriv --reuid="${USER_OF%%:*}" --regid="${USER_OF##*:}" --clear-groups --no-new-privs --bounding-set=-all \\
  --inh-caps=-all env -i PATH=/usr/local/bin:/usr/bin:/bin $SETTINGS "$@"
"""


def check_program(stage, env):
    settings = " ".join(f"{name}={value}" for name, value in env.items())
    begun = {**os.environ, "PROGRAM": str(PROGRAM), "USER_OF": stage["USER"][-1], "SETTINGS": settings}
    command = json.loads(stage["ENTRYPOINT"][-1]) + json.loads(stage["CMD"][-1])
    server = subprocess.Popen(["unshare", "--mount", "--net", "sh", "-c", SCRIPT, "sh", *command], env=begun,
                              stdout=subprocess.PIPE, text=True)
    try:
        ready = server.stdout.readline()
        assert ready.startswith("ready "), ready

        def beside(*words):
            """What `docker exec` does."""
            enter = ["nsenter", f"--target={server.pid}", "--mount", "--net", "setpriv"]
            user, group = stage["USER"][-1].split(":")
            fences = [f"--reuid={user}", f"--regid={group}", "--clear-groups", "--no-new-privs", "env", "-i", "-C", "/var/lib/h3cast"]
            path = "PATH=/usr/local/bin:/usr/bin:/bin"
            return subprocess.run([*enter, *fences, path, *settings.split(), *words], text=True, timeout=30,
                                  stdout=subprocess.PIPE, stderr=subprocess.STDOUT)

        _, _, health = stage["HEALTHCHECK"][-1].partition("CMD ")
        health = json.loads(health)
        healthy = beside(*health)
        assert healthy.returncode == 0, healthy.stdout
        assert beside("h3cast", "health", "--http", "off").returncode == 0, "over HTTP/3, by its own certificate"
        reloaded = beside("h3cast", "reload")
        assert reloaded.returncode == 0, reloaded.stdout
        written = beside("sh", "-c", "touch /usr/local/bin/x /var/lib/x /etc/x /tmp/x; touch /var/lib/h3cast/x")
        assert written.returncode == 0 and written.stdout.count("Read-only file system") >= 3, written.stdout
        identity = pathlib.Path(f"/proc/{server.pid}/status").read_text().splitlines()
        uid = next(line for line in identity if line.startswith("Uid:")).split()[1:]
        assert set(uid) == {stage["USER"][-1].split(":")[0]}, uid
        assert all(line.split()[1].strip("0") == "" for line in identity if line.startswith(("CapEff", "CapBnd")))
        server.send_signal(getattr(signal, stage["STOPSIGNAL"][-1]))
        assert server.wait(20) == 0
    finally:
        server.kill()
        server.wait()
    print("the program runs as nobody on a read-only root, and is healthy, reloaded and stopped")


def main():
    started = time.monotonic()
    stage, env = described()
    check_description(stage, env)
    check_program(stage, env)
    with tempfile.TemporaryDirectory() as folder:
        check_context(context(folder))
    print(f"image: {time.monotonic() - started:.0f} s")


if __name__ == "__main__":
    sys.exit(main())
