"""The Debian package: lintian finds no fault in it, and the program, manual pages, completions, units and settings in it
are whole and of one version. It is installed in a root of its own, and started there as its unit does; nothing of this
machine changes.
"""

import gzip
import os
import pathlib
import shlex
import subprocess
import sys
import tempfile
import urllib.request

ROOT = pathlib.Path(__file__).resolve().parents[2]
# A first upload to Debian would close a bug there.
NOT_FOR_US = "initial-upload-closes-no-bugs"


def run(*words, **more):
    done = subprocess.run([str(word) for word in words], text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, **more)
    assert done.returncode == 0, f"{words}: {done.stdout}"
    return done.stdout


def built():
    return pathlib.Path(run(ROOT / "packaging/deb", cwd=ROOT).strip().splitlines()[-1])


def check_control(package):
    fields = run("dpkg-deb", "--field", package)
    assert "Package: h3cast\n" in fields and "libc6" in fields and "systemd-standalone-sysusers" in fields, fields
    root = ["--allow-root"] if os.geteuid() == 0 else []
    print(run("lintian", *root, "--fail-on", "error,warning", "--suppress-tags", NOT_FOR_US, package), end="")
    with tempfile.TemporaryDirectory() as control:
        run("dpkg-deb", "--control", package, control)
        assert pathlib.Path(control, "conffiles").read_text() == "/etc/h3cast/h3cast.toml\n"
        scripts = [path.name for path in pathlib.Path(control).iterdir() if path.name.endswith(("inst", "rm"))]
        assert sorted(scripts) == ["postinst", "postrm", "prerm"], scripts
        assert "systemd-sysusers" in pathlib.Path(control, "postinst").read_text()
        for name in scripts:
            text = pathlib.Path(control, name).read_text()
            assert "invoke start" not in text and "invoke restart" not in text, f"{name} starts a service: {text}"


def check_files(root):
    program = root / "usr/bin/h3cast"
    assert ".symtab" not in run("readelf", "--sections", "--wide", program), "with symbols"
    clean = {name: value for name, value in os.environ.items() if not name.startswith("H3CAST_")}
    date = {**clean, "SOURCE_DATE_EPOCH": "0"}
    version = run(program, "--version", env=clean)
    pages = root / "usr/share/man/man1"
    with tempfile.TemporaryDirectory() as fresh:
        run(program, "man", fresh, env=date)
        names = sorted(path.name for path in pathlib.Path(fresh).iterdir())
        assert names and names == sorted(path.name.removesuffix(".gz") for path in pages.iterdir())
        for name in names:
            # Their headings have the date.
            there, new = gzip.decompress((pages / f"{name}.gz").read_bytes()).decode(), pathlib.Path(fresh, name).read_text()
            assert there.splitlines()[3:] == new.splitlines()[3:], name
            assert f'"{version.strip()}"' in there.splitlines()[2], there.splitlines()[2]
    share = root / "usr/share"
    for shell, path in [("bash", "bash-completion/completions/h3cast"), ("zsh", "zsh/vendor-completions/_h3cast"),
                        ("fish", "fish/vendor_completions.d/h3cast.fish")]:
        assert (share / path).read_text() == run(program, "completions", shell, env=clean), shell
    for unit in [*ROOT.glob("packaging/*.service"), *ROOT.glob("packaging/*.socket")]:
        assert (root / "usr/lib/systemd/system" / unit.name).read_text() == unit.read_text(), unit.name
    settings = root / "etc/h3cast/h3cast.toml"
    run(program, "serve", "--config", settings, "--check", env=clean, cwd=root)
    # What it suggests works as well, but for the files and names that it makes up.
    suggested = [line[2:] for line in settings.read_text().splitlines() if line.startswith("# ") and " = " in line]
    assert len(suggested) == 6, suggested
    with tempfile.TemporaryDirectory() as folder:
        tokens = pathlib.Path(folder, "tokens")
        made = run(program, "token", "--read", "*", "--sub", "alice", env=clean).splitlines()
        # What the server is to know of it, wherever among them that is.
        tokens.write_text(next(line.strip() for line in made if "sha256:" in line) + "\n")
        tokens.chmod(0o600)
        tried = "\n".join(suggested).replace("/etc/h3cast/tokens", str(tokens)).replace("/var/lib", folder)
        pathlib.Path(folder, "h3cast.toml").write_text(tried)
        run(program, "serve", "--config", "h3cast.toml", "--check", env=clean, cwd=folder)


def installed(package, root):
    """By dpkg itself with its scripts, as root; unpacked, for others."""
    if os.geteuid() != 0:
        run("dpkg-deb", "--extract", package, root)
        return
    (root / "var/lib/dpkg").mkdir(parents=True)
    dpkg = ["dpkg", f"--root={root}", "--force-script-chrootless", "--force-depends", f"--log={root}/dpkg.log"]
    run(*dpkg, "--install", package)
    # Neither enabled nor started.
    assert not list((root / "etc").glob("systemd/system/*.wants/*"))
    # An upgrade leaves changed settings alone, and a removal too.
    settings = root / "etc/h3cast/h3cast.toml"
    original = settings.read_text()
    settings.write_text("count = 3\n")
    run(*dpkg, "--install", package)
    run(*dpkg, "--remove", "h3cast")
    assert settings.read_text() == "count = 3\n" and not (root / "usr/bin/h3cast").exists()
    written = [root / "var/lib/h3cast", root / "var/lib/private/h3cast/certs", root / "var/log/private/h3cast"]
    for folder in written:
        folder.mkdir(parents=True)
    run(*dpkg, "--purge", "h3cast")
    assert not settings.exists() and not [folder for folder in written if folder.exists()]
    # Files of this user may be left.
    assert user(root)
    run(*dpkg, "--install", package)
    assert settings.read_text() == original


def user(root):
    """The numbers of the service's user and its group."""
    lines = [line.split(":") for line in (root / "etc/passwd").read_text().splitlines()]
    return next(map(int, fields[2:4]) for fields in lines if fields[0] == "h3cast")


def check_start(root):
    """As the unit does, as its user if that can be: it answers, and ends when asked to."""
    lines = (root / "usr/lib/systemd/system/h3cast.service").read_text().splitlines()
    unit = [line.split("=", 1) for line in lines if "=" in line]
    state = root / "var/lib/h3cast"
    state.mkdir(parents=True, exist_ok=True)
    command = [word.replace("/usr/bin", f"{root}/usr/bin").replace("/etc/", f"{root}/etc/")
               for word in shlex.split(dict(unit)["ExecStart"])]
    settings = [value.replace("%S", str(state.parent)).split("=", 1) for name, value in unit if name == "Environment"]
    others = {}
    if os.geteuid() == 0:
        uid, gid = user(root)
        root.chmod(0o755)
        os.chown(state, uid, gid)
        others = {"user": uid, "group": gid, "extra_groups": []}
    server = subprocess.Popen(command, cwd=state, env={"PATH": "/usr/bin:/bin", **dict(settings)}, text=True,
                              stdout=subprocess.PIPE, **others)
    try:
        ready = server.stdout.readline()
        assert ready.startswith("ready "), ready
        url = next(word for word in ready.split() if word.startswith("http://"))
        with urllib.request.urlopen(f"{url}healthz", timeout=20) as answer:
            assert answer.status == 200
    finally:
        server.terminate()
        ended = server.wait(timeout=20)
        server.stdout.close()
    assert ended == 0 and (state / "cert.pem").exists(), ended


def main():
    package = built()
    check_control(package)
    with tempfile.TemporaryDirectory() as folder:
        root = pathlib.Path(folder)
        installed(package, root)
        check_files(root)
        check_start(root)
    print(f"{package.name}: {package.stat().st_size / 1e6:.1f} MB")


if __name__ == "__main__":
    sys.exit(main())
