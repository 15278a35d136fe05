"""The same work in this process or spread over several."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager


@contextmanager
def mapping(processes: int) -> Iterator[Callable]:
    """`map`, lazily and in order, over so many processes; with one it stays in this one."""
    if processes == 1:
        yield map
        return
    import multiprocessing

    with multiprocessing.get_context("spawn").Pool(processes) as pool:
        yield pool.imap
