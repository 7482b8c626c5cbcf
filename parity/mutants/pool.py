"""Many jobs in processes of their own, some at a time, each with a limit."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import shutil
import signal
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait
from typing import Any

from parity.mutants.worker import DOING, Found, Job, own_folder, work

_WALL = 20  # a process that waits takes no CPU time: after so many times its limit it is ended
_PRELOAD = "parity.mutants.preload"


@dataclass
class _Running:
    process: Any
    receive: Connection
    job: Job
    begin: float = field(default_factory=time.monotonic)

    @property
    def overdue(self) -> bool:
        limit = self.job.cpu_seconds
        return bool(limit) and time.monotonic() - self.begin > _WALL * limit


def run_jobs(
    jobs: Iterable[Job], workers: int, go_on: Callable[[], bool] = lambda: True
) -> Iterator[tuple[Job, Found]]:
    """Run jobs and yield each with what it found, as they end; no more are begun once ``go_on`` says no.

    A job that took too long has "timeout", one whose process ended without an answer "raises".
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([_PRELOAD])
    waiting, running = iter(jobs), list[_Running]()
    try:
        while True:
            while len(running) < workers and go_on() and (job := next(waiting, None)) is not None:
                receive, send = context.Pipe(duplex=False)
                process = context.Process(target=_serve, args=(job, send), daemon=True)
                process.start()
                send.close()
                running.append(_Running(process, receive, job))
            if not running:
                return
            wait([one.receive for one in running], timeout=1)
            for one in [one for one in running if one.receive.poll() or one.overdue]:
                running.remove(one)
                yield one.job, _end(one)
    finally:
        for one in running:
            one.process.kill()


def _serve(job: Job, send: Connection) -> None:
    """In the forked process."""
    work(job, send.send)
    send.close()
    os._exit(0)  # threads of the frameworks need not be waited for


def _end(one: _Running) -> Found:
    """What a process answered, or how it ended without an answer."""
    found: Found | None = None
    with contextlib.suppress(EOFError, OSError):
        found = one.receive.recv() if one.receive.poll() else None
    if found is None and one.overdue:
        one.process.kill()
    one.process.join(10)
    if one.process.exitcode is None:
        one.process.kill()
    one.receive.close()
    own = own_folder(one.job, one.process.pid)
    doing = note.read_text() if (note := own / DOING).is_file() else ""
    shutil.rmtree(own, ignore_errors=True)
    if found is not None:
        return found
    if one.overdue or one.process.exitcode in (-signal.SIGXCPU, -signal.SIGKILL):
        return {"stage": doing, "timeout": True}
    return {"stage": doing, "raises": f"the process ended with {one.process.exitcode}"}
