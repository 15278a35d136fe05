"""The starting configs of the embedded tasks, from the recorded table: `python -m benchmarks.portfolio`.

Prints what stands in `idat_tune/portfolio.py`, each task's from the recorded tasks other than itself.
"""

from pprint import pprint

from idat_tune.replay import greedy, table
from idat_tune.tasks import TASKS


def derived() -> dict[str, tuple[dict, ...]]:
    recordings = table.read()
    recorded = {task: table.curves_of(recordings, task) for task in table.tasks_of(recordings)}
    found = {}
    for task in (task.name for task in TASKS.values() if task.embedded):
        sources = [curves for name, curves in recorded.items() if name != task]
        found[task] = tuple(greedy.rounded(sources[0][name].point) for name in greedy.portfolio(sources))
    return found


if __name__ == "__main__":
    pprint(derived(), sort_dicts=False, width=118)
