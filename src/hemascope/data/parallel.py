"""Work spread over threads, results in order, never more than a window of it waiting.

Threads, not processes: Pillow decodes and resizes, and hashlib hashes, without holding the interpreter's
lock, so threads scale with the cores and nothing has to be copied between processes.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")

CHUNK = 16
"""Items a thread takes at once: handing over one image costs a few per cent of decoding it."""


def default_threads() -> int:
    """Cores this process may use, and one more thread that waits for the disk while the others compute."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(cores + 1, 32)


def ordered_map(
    work: Callable[[Item], Result], items: Iterable[Item], *, threads: int | None = None, chunk: int = CHUNK
) -> Iterator[Result]:
    """``work`` on each item, in threads; results in the order of ``items``.

    ``items`` is drawn from in the calling thread, in order. At most 4 chunks a thread are under way or
    wait to be taken, so memory is bounded however slow the consumer is. An error of ``work`` is raised
    where its result would have come.
    """
    count = threads or default_threads()
    source = iter(items)

    def run(chunk_items: list[Item]) -> list[Result]:
        return [work(item) for item in chunk_items]

    pool = ThreadPoolExecutor(count, thread_name_prefix="hemascope-read")
    waiting: deque[Future[list[Result]]] = deque()
    try:
        while True:
            while len(waiting) < 4 * count and (taken := list(islice(source, chunk))):
                waiting.append(pool.submit(run, taken))
            if not waiting:
                return
            yield from waiting.popleft().result()
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
