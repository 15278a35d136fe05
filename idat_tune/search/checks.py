"""What a search needs before it starts: its device, its models, and the weights that it was begun with."""

from collections.abc import Iterable, Mapping
from typing import Any

import ray

from idat_tune import model, weights
from idat_tune.backbones import NO_TEACHER
from idat_tune.engine.devices import choose_device
from idat_tune.errors import BadInput
from idat_tune.search.manifest import begun, is_finished
from idat_tune.search.plan import Plan


def check_devices(plans: Iterable[Plan]) -> None:
    """Make sure that the device of the trials to come is on this machine, if that is where Ray is yet to be started.

    Of a Ray that is there already only its workers know.

    Raises:
        BadInput: naming it.
    """
    if not ray.is_initialized():
        to_come = [plan for plan in plans if not is_finished(plan)]
        for name in {plan.config_of({}).device for plan in to_come} - {"auto"}:
            choose_device(name)


def check_models(plan: Plan) -> None:
    """Make sure that whatever a trial may use can be built and has weights here; of those on the hub they are fetched.

    Before anything is written; and once, instead of by all workers at the same time.

    Raises:
        BadInput: naming what cannot; where the space alone asks for it, it says so.
    """
    default = plan.config_of({})
    model.check(default)
    for config in plan.pairs():
        try:
            model.check(config)
        except BadInput as failure:
            if config.teacher in (NO_TEACHER, default.teacher) or config.student != default.student:
                raise
            raise BadInput(
                f"space '{plan.space.name}' wants {config.teacher} as a teacher: {failure}; or hold another with --set "
                f"teacher={default.teacher}, or take it out of a space of your own"
            ) from None


def held_weights(plan: Plan) -> dict[str, dict[str, Any]]:
    """Which weights the backbones of a search have; nothing for one that is finished and only read again.

    Raises:
        BadInput: they cannot be had, or are others than those that the search was begun with.
    """
    if is_finished(plan):
        return {}
    check_weights(plan, begun(plan).get("weights", {}))
    return {name: weights.identify(name).as_dict() for name in plan.backbones()}


def check_weights(plan: Plan, known: Mapping[str, Mapping[str, Any]]) -> None:
    """Refuse other weights than those that a search was begun with.

    Raises:
        BadInput: naming them.
    """
    for name, held in known.items():
        weights.check_same(name, held, f"search '{plan.name}' was begun with", ", or give a new search another --name")
