"""Worker processes that end with their parent, and a pool that maps over many tasks with bounded memory."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from multiprocessing import get_context, parent_process
from types import TracebackType
from typing import Any, TypeVar

from crossmed_core.errors import CrossmedError, ExitCode

Task = TypeVar("Task")
Result = TypeVar("Result")

THREAD_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
AHEAD = 4
"""Tasks per worker that are handed out before the first result is taken."""


def become_worker() -> None:
    """Make this process a worker: deaf to Ctrl-C, quiet on stdout, ended with its parent."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent hears Ctrl-C and ends its workers

    def leave_with_parent() -> None:
        parent = parent_process()
        if parent is not None:
            parent.join()
            os._exit(1)  # the parent was killed: nobody waits for us, and a new run may want the folder

    threading.Thread(target=leave_with_parent, daemon=True).start()
    sys.stdout = sys.stderr  # --json promises a clean stdout


@contextmanager
def deaf() -> Iterator[None]:
    """Ignore Ctrl-C while processes are started: they inherit it, and would print a traceback before they can ask."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _begin(setup: Callable[..., None], arguments: tuple[Any, ...]) -> None:
    become_worker()
    setup(*arguments)


def terminate(pool: ProcessPoolExecutor) -> None:
    """End a pool's processes now."""
    processes = list((pool._processes or {}).values())  # before shutdown, which forgets them
    pool.shutdown(wait=False, cancel_futures=True)
    for process in processes:
        process.terminate()


def worker_died() -> CrossmedError:
    """Build the error for a worker that was killed."""
    return CrossmedError(
        "A worker process died (killed, or out of memory).",
        hint="Run the same command again to go on, with --jobs 1 if memory is short.",
        exit_code=ExitCode.TRIALS_FAILED,
    )


class Workers:
    """Maps functions over tasks in `jobs` processes, or in this one if `jobs` is 1. The results are the same.

    Args:
        jobs: Processes.
        setup: Called once in every process before its first task.
        arguments: What `setup` is called with; picklable.
    """

    def __init__(self, jobs: int, setup: Callable[..., None], *arguments: Any) -> None:
        self.jobs = jobs
        self._setup = setup, arguments
        self._ready = False
        self._pool: ProcessPoolExecutor | None = None

    def __enter__(self) -> Workers:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._pool is not None:
            if error is None:
                self._pool.shutdown()
            else:
                terminate(self._pool)
            self._pool = None

    def map(self, function: Callable[[Task], Result], tasks: Iterable[Task]) -> Iterator[Result]:
        """Yield `function(task)` for each task, in order, handing out only a few tasks ahead.

        Args:
            function: A module's function, so that it can be found by name in another process.
            tasks: Picklable.

        Raises:
            CrossmedError: If a process is killed; and whatever `function` raises.
        """
        if self.jobs <= 1:
            if not self._ready:
                self._setup[0](*self._setup[1])
                self._ready = True
            yield from map(function, tasks)
            return
        if self._pool is None:
            # Spawned, not forked: forked children inherit locks that a thread of the parent may hold.
            os.environ.update({name: os.environ.get(name, "1") for name in THREAD_VARIABLES})
            self._pool = ProcessPoolExecutor(self.jobs, get_context("spawn"), _begin, self._setup)
        waiting: deque[Future[Result]] = deque()
        try:
            for task in tasks:
                with contextlib.nullcontext() if self._ready else deaf():  # the first task starts the processes
                    waiting.append(self._pool.submit(function, task))
                self._ready = True
                if len(waiting) >= AHEAD * self.jobs:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        except BrokenProcessPool as error:
            raise worker_died() from error
