"""How images are dealt out at random: classes in proportion, and what belongs together on one side."""

from __future__ import annotations

import heapq
from collections import defaultdict
from collections.abc import Hashable, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np


def stratified(labels: Sequence[int], count: int, seed: int) -> list[int]:
    """`count` places in `labels`, drawn at random, with the classes in the proportions they have there.

    Every class gets a draw if there are enough of them; beyond that, shares are rounded by largest remainder.
    """
    import numpy as np

    places: dict[int, list[int]] = defaultdict(list)
    for place in np.random.default_rng(seed).permutation(len(labels)):
        places[labels[place]].append(int(place))
    ideal = {label: len(found) * count / len(labels) for label, found in places.items()}
    least = 1 if count >= len(places) else 0
    take = {label: max(least, int(share)) for label, share in ideal.items()}
    missing = count - sum(take.values())
    for label in sorted(take, key=lambda label: ideal[label] - take[label], reverse=True)[: max(0, missing)]:
        take[label] += 1
    # With a draw for every class there may be too many: first from those that have most above their share.
    above = [(ideal[label] - take[label], place, label) for place, label in enumerate(take) if take[label] > least]
    heapq.heapify(above)
    for _ in range(-missing):
        _, place, label = heapq.heappop(above)
        take[label] -= 1
        if take[label] > least:
            heapq.heappush(above, (ideal[label] - take[label], place, label))
    return sorted(place for label, found in places.items() for place in found[: take[label]])


def whole_groups(
    labels: Sequence[int], groups: Sequence[Hashable], shares: Sequence[float], seed: int
) -> list[list[int]]:
    """Places in `labels` for each share, as `dealt` divides them; the first is for training.

    It gets an image of every class, unless that would empty another part.
    """
    import numpy as np

    number_of: dict[Hashable, int] = {}
    group_of = np.array([number_of.setdefault(group, len(number_of)) for group in groups])
    label_of, sizes = np.asarray(labels), np.bincount(group_of)
    part = dealt(label_of, group_of, shares, seed)
    for label in np.unique(label_of):
        candidates = group_of[label_of == label]
        if (part[label_of == label] > 0).all():
            moved = group_of == candidates[np.argmin(sizes[candidates])]
            if len({*part[~moved], 0}) == len(shares):
                part[moved] = 0
    return [[int(place) for place in np.flatnonzero(part == number)] for number in range(len(shares))]


def dealt(labels: np.ndarray, groups: np.ndarray, shares: Sequence[float], seed: int) -> np.ndarray:
    """The part (N,) that each image goes to, of as many as there are shares; a group goes to one part as a whole.

    The largest groups first, in random order among equals, each to the part that lacks most of its classes and most
    images. No part is left empty if there are as many groups. scikit-learn's StratifiedGroupKFold does the same for
    equal shares only, and gives some parts nothing.

    Args:
        labels: of the images, (N,).
        groups: numbers of their groups, (N,).
        shares: of all images, one per part, in sum 1.
        seed: of the order among equals.
    """
    import numpy as np

    _, class_of, per_class = np.unique(labels, return_inverse=True, return_counts=True)
    _, group_of, per_group = np.unique(groups, return_inverse=True, return_counts=True)
    order = np.random.default_rng(seed).permutation(len(per_group))
    order = order[np.argsort(-per_group[order], kind="stable")]
    members = np.split(np.argsort(group_of, kind="stable"), np.cumsum(per_group)[:-1])
    part = np.asarray(shares)
    lacking, lacking_in_all = np.outer(part, per_class).astype(float), part * len(labels)
    owner = np.empty(len(per_group), np.int64)
    for group in order:
        classes, images = np.unique(class_of[members[group]], return_counts=True)
        size = per_group[group]
        need = lacking[:, classes] @ (images / per_class[classes]) + lacking_in_all * size / len(labels)
        # Rounded, so that what is equal but for the order of sums falls alike on all machines of a search.
        taker = owner[group] = int(np.argmax(need.round(9)))
        lacking[taker, classes] -= images
        lacking_in_all[taker] -= size
    for empty in range(len(part)):
        held = np.bincount(owner, minlength=len(part))
        if not held[empty] and held.max() > 1:
            giver = np.flatnonzero(owner == np.argmax(held))
            owner[giver[np.argmin(per_group[giver])]] = empty
    taken: np.ndarray = owner[group_of]
    return taken


def joined_groups(*keys: np.ndarray) -> np.ndarray:
    """Numbers of groups (N,) such that two images that have any of the keys (N,) in common are in one."""
    import numpy as np

    numbers = [np.unique(key, return_inverse=True)[1] for key in keys]
    group = np.arange(len(keys[0]))
    while True:
        before = group
        for number in numbers:
            least = np.full(number.max(initial=0) + 1, len(group))
            np.minimum.at(least, number, group)
            group = least[number]
        if (group == before).all():
            return group
