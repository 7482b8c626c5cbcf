"""sha256 of files, on other threads.

A conversion waits longer for these than for anything else. So it begins to hash before it does other work.
"""

from __future__ import annotations

import hashlib
import threading
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import Self

from bigbird_port.files.reading import open_unbuffered

THREADS = 2  # how many threads hash at a time; hashing does not hold Python's lock
_HASHED_BYTES = 1 << 20  # at once: they stay in the cache. hashlib.file_digest takes fewer, and changes threads often


class FileDigests:
    """sha256 of files. Each is computed once, and begins when it is first asked for.

    It is a context manager: leaving the block stops the hashing that still runs.

    threads: the pool that hashes. Other work for the processor is given to the same pool, so that no more threads run
    than there are cores, and the hash of one long file keeps its core.
    """

    def __init__(self) -> None:
        self.threads = ThreadPoolExecutor(THREADS, thread_name_prefix="worker")
        self._stopped = threading.Event()
        self._begun: dict[Path, Future[str]] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stopped.set()
        self.threads.shutdown(cancel_futures=True)

    def sha256(self, path: Path) -> Future[str]:
        """Return the future sha256 of a file. Hashing begins at the first call for the file."""
        if path not in self._begun:
            self._begun[path] = self.threads.submit(file_digest, path, self._stopped)
        return self._begun[path]


def file_digest(path: Path, stopped: threading.Event | None = None) -> str:
    """Return the sha256 of a file. If ``stopped`` is set meanwhile, reading ends and the result is meaningless."""
    digest, buffer = hashlib.sha256(), bytearray(_HASHED_BYTES)
    with open_unbuffered(path) as file, memoryview(buffer) as view:
        while (size := file.readinto(view)) and not (stopped and stopped.is_set()):
            digest.update(view[:size])
    return digest.hexdigest()
