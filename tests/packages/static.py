"""The static program needs no library, and nothing else of a system: in an empty root it serves a feed, and reads it."""

import os
import pathlib
import shutil
import subprocess
import sys
import tempfile


def main(program):
    headers = subprocess.run(["readelf", "--program-headers", program], check=True, text=True, stdout=subprocess.PIPE).stdout
    assert "INTERP" not in headers, headers
    with tempfile.TemporaryDirectory() as folder:
        shutil.copy(program, folder)
        # Only root can make it the root of a process.
        alone = [shutil.which("chroot"), folder, "/h3cast"] if os.geteuid() == 0 else [f"{folder}/h3cast"]
        more = {"cwd": folder, "env": {}, "text": True, "stdout": subprocess.PIPE}
        demo = ["serve", "--listen", "127.0.0.1:0", "--http", "off", "--interval", "1ms", "--count", "3"]
        server = subprocess.Popen([*alone, *demo], **more)
        try:
            ready = server.stdout.readline()
            assert ready.startswith("ready "), ready
            url = next(word for line in iter(server.stdout.readline, "") for word in line.split()
                       if word.startswith("https://") and word.endswith("/stream"))
            got = subprocess.run([*alone, "get", url], timeout=60, check=True, **more).stdout
        finally:
            server.terminate()
            ended = server.wait(timeout=20)
            server.stdout.close()
    assert got.count("\n") == 3 and ended == 0, (got, ended)
    print(f"{program}: {pathlib.Path(program).stat().st_size / 1e6:.1f} MB, runs in an empty root")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
