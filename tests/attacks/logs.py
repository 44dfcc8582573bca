"""The standard error of a server: a pipe that is copied to a file, unless it is stalled."""

import os
import tempfile
import threading


class Log:
    def __init__(self) -> None:
        self.file = tempfile.TemporaryFile("a+")
        self._read, self.end = os.pipe()
        self._flowing = threading.Event()
        self._flowing.set()
        self._copying = threading.Thread(target=self._copy, daemon=True)
        self._copying.start()

    def _copy(self) -> None:
        while data := os.read(self._read, 65536):
            os.write(self.file.fileno(), data)
            self._flowing.wait()
        os.close(self._read)

    def losses(self) -> int:
        """How many times it says so far that lines were lost."""
        size = os.fstat(self.file.fileno()).st_size
        return os.pread(self.file.fileno(), size, 0).count(b" lost here, which could not be written")

    def stall(self, stalled: bool) -> None:
        self._flowing.clear() if stalled else self._flowing.set()

    def started(self) -> None:
        """The server has its end now: when that is closed, the log is complete."""
        os.close(self.end)
