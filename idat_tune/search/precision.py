"""What a search computes in: asked of a worker once, where it begins, and then the same for all its trials."""

from dataclasses import replace

import ray

from idat_tune.backbones import EMBEDDED, RANDOM
from idat_tune.config import RunConfig
from idat_tune.errors import IdatError
from idat_tune.journal import Journal
from idat_tune.search.plan import Plan
from idat_tune.search.room import Room
from idat_tune.worker.pool import PATIENCE
from idat_tune.worker.trial import precision_of

AUTO = "auto"


def settled(plan: Plan, journal: Journal, room: Room) -> str | None:
    """What `precision: auto` is on a worker, if it was not settled before; None where it is not asked for.

    Else trials that are compared could differ in it: on other nodes, or after a resume on another machine. Both
    precisions run everywhere, so that a search goes on in its own wherever it is resumed.
    """
    searched = any(param.key == "precision" for param in plan.space.params)
    if searched or plan.config_of({}).precision != AUTO:
        return None
    return journal.state.precision or _asked(plan.config_of({}), room)


def held(plan: Plan, journal: Journal) -> Plan:
    """The plan in the precision that the journal has the answer for, if it has one by now."""
    known = journal.state.precision
    return plan if known is None else replace(plan, space=plan.space.with_fixed({"precision": known}))


def _asked(config: RunConfig, room: Room) -> str:
    if not room.gpus and config.student.removeprefix(RANDOM) in EMBEDDED:
        return "fp32"  # as every CPU would answer
    try:
        asked = ray.remote(num_cpus=1, num_gpus=room.gpus)(precision_of).remote(config)
        return ray.get(asked, timeout=PATIENCE)
    except ray.exceptions.GetTimeoutError:
        raise IdatError(f"no machine to train on was there for {PATIENCE / 60:g} minutes; see Ray's own logs") from None
    except ray.exceptions.RayTaskError as failure:
        if isinstance(failure.cause, IdatError):
            raise failure.cause from None  # without the trace of the worker
        raise
