"""Where a backbone was published, and under which licence."""

from dataclasses import dataclass

from idat_tune.backbones import EMBEDDED, RANDOM
from idat_tune.weights import names

OURS = "apache-2.0"  # of the backbones that the package brings


@dataclass(frozen=True)
class Origin:
    """What is known of it; None where nothing is."""

    repository: str | None  # of the hub, as `owner/name`
    licence: str | None  # of the weights, as the hub calls it, by timm's records


def origin(backbone: str) -> Origin:
    """The origin of a backbone's weights; random ones have none.

    Raises:
        BadInput: timm knows no such model.
    """
    if backbone.startswith(RANDOM):
        return Origin(None, None)
    if backbone in EMBEDDED:
        return Origin(None, OURS)
    import timm

    full = names.timm_name(backbone)
    cfg = timm.get_pretrained_cfg(full)
    return Origin(next(iter(names.repositories(full)), None), getattr(cfg, "license", None))
