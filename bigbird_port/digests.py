"""sha256 of files, on other threads: what a conversion waits for longest, and so begins first."""

from __future__ import annotations

import hashlib
import threading
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import Self

from bigbird_port.reading import open_unbuffered

THREADS = 2  # that hash at a time, wherever files or weights are hashed: it does not hold Python's lock
_HASHED_BYTES = 1 << 20  # at once: stays in the cache; hashlib.file_digest takes less, and so hands threads over often


class FileDigests:
    """sha256 of files, each computed once, from the moment it is first asked for; leaving the block stops what runs.

    threads: those that hash. Whoever has other work for the processor gives it to them too: as many run as there are
    cores to use, and the hash of one long file, which no second core makes shorter, keeps its own.
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
        """Begin to hash a file, or return what was begun."""
        if path not in self._begun:
            self._begun[path] = self.threads.submit(file_digest, path, self._stopped)
        return self._begun[path]


def file_digest(path: Path, stopped: threading.Event | None = None) -> str:
    """sha256 of a file; meaningless once ``stopped`` is set, which ends it."""
    digest, buffer = hashlib.sha256(), bytearray(_HASHED_BYTES)
    with open_unbuffered(path) as file, memoryview(buffer) as view:
        while (size := file.readinto(view)) and not (stopped and stopped.is_set()):
            digest.update(view[:size])
    return digest.hexdigest()
