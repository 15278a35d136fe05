"""Which images are train, val and test: as it is said, and at random what is not."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

from idat_tune.data.dealing import stratified, whole_groups
from idat_tune.data.sources import Choices
from idat_tune.errors import BadInput

_TRAIN_IMAGES = 1000  # where none are asked for, and at most _TRAIN_SHARE of all
_TRAIN_SHARE = 0.8
_VAL_SHARE = 0.2  # of the training images
_HINT = "rows of one group must stand in one split"


@dataclass(frozen=True)
class Division:
    """Numbers of images per split."""

    splits: dict[str, list[int]]
    made: tuple[str, ...]  # those that were drawn here, so that no picture of theirs may stand in another
    notes: tuple[str, ...]


@dataclass(frozen=True)
class Said:
    """What is known of images before they are divided; all in their order."""

    labels: Sequence[int]
    splits: Sequence[str | None]  # train, val, test, or None where that is not said
    groups: Sequence[str | None]  # what must not be torn apart; None is a group of one image
    where: Sequence[str]  # for messages
    repeats: Collection[int]  # images that repeat an earlier one of their split; left out where that is divided


def divide(said: Said, choices: Choices, path: Path) -> Division:
    """Divide images into train, val and test as they say, else stratified at random, groups as a whole.

    Raises:
        BadInput: too few images or groups, some images with and some without a split, a group in two given splits.
    """
    return _Divider(said, choices, path).divide()


class _Divider:
    def __init__(self, said: Said, choices: Choices, path: Path):
        self.said, self.choices, self.path = said, choices, path
        # An image without a group is one of its own.
        self.groups = [i if group is None else group for i, group in enumerate(said.groups)]
        self.grouped = any(group is not None for group in said.groups)
        self.notes: list[str] = []
        self.made: tuple[str, ...] = ()

    def divide(self) -> Division:
        splits, unsaid = self._said()
        if unsaid:
            splits = self._from_nothing(unsaid)
        elif not splits["test"]:
            splits["train"], splits["test"] = self._apart("test", self._distinct(splits["train"]))
            self.made = ("train", "test")
        if splits["val"]:
            splits["train"] = self._limited(splits["train"])
        else:
            pool = splits["train"] if self.made else self._distinct(splits["train"])
            splits["train"], splits["val"] = self._apart("val", self._limited(pool))
            self.made = self.made or ("train", "val")
        self._look(splits)
        return Division(splits, self.made, tuple(self.notes))

    def _said(self) -> tuple[dict[str, list[int]], list[int]]:
        splits: dict[str, list[int]] = {"train": [], "val": [], "test": []}
        unsaid: list[int] = []
        for i, split in enumerate(self.said.splits):
            (splits[split] if split else unsaid).append(i)
        given = [split for split, found in splits.items() if found]
        if unsaid and given:
            raise BadInput(f"{self.said.where[unsaid[0]]} has no split, others have; give all rows one, or none")
        if given and "train" not in given:
            raise BadInput(
                f"{self.path} has {' and '.join(given)} but no train images; name its images train, or give no splits "
                "at all, then they are divided"
            )
        self._check_groups()
        if given == ["train"]:
            self.notes.append("all images are called train, so val and test were taken from them")
            return splits, splits["train"]
        return splits, unsaid

    def _check_groups(self) -> None:
        first: dict[str, int] = {}
        for i, group in enumerate(self.said.groups):
            if group is not None and self.said.splits[first.setdefault(group, i)] != self.said.splits[i]:
                where, other = self.said.where[first[group]], self.said.where[i]
                raise BadInput(
                    f"the group '{group}' is in {self.said.splits[first[group]]} ({where}) and in "
                    f"{self.said.splits[i]} ({other}); {_HINT}"
                )

    def _from_nothing(self, everything: list[int]) -> dict[str, list[int]]:
        pool = self._distinct(everything)
        count = self.choices.train_images or min(_TRAIN_IMAGES, round(_TRAIN_SHARE * len(pool)))
        if not 2 <= count < len(pool):
            raise BadInput(
                f"{self.path} has {len(pool):,} images, so {count:,} cannot be for training (at least 2) with some "
                "left for test; choose another --train-images"
            )
        self.made = ("train", "val", "test")
        if self.grouped:
            share, val = count / len(pool), _VAL_SHARE
            parts = self._whole(pool, (share * (1 - val), share * val, 1 - share), self.made, self.choices.seed)
            return dict(zip(self.made, parts, strict=True))
        train = self._drawn(pool, count, self.choices.seed)
        return {"train": train, "val": [], "test": sorted(set(pool) - set(train))}

    def _distinct(self, pool: list[int]) -> list[int]:
        """The pool without exact copies, which must not fall on both sides of a division made here."""
        kept = [i for i in pool if i not in self.said.repeats]
        if len(kept) < len(pool):
            self.notes.append(f"{len(pool) - len(kept)} exact copies of other images were left out")
        return kept

    def _limited(self, train: list[int]) -> list[int]:
        wanted = self.choices.train_images
        if not wanted or "val" in self.made:
            return train
        if wanted > len(train):
            raise BadInput(f"{self.path} has {len(train):,} images to train with, not {wanted:,}")
        return self._drawn(train, wanted, self.choices.seed)

    def _apart(self, split: str, pool: list[int]) -> tuple[list[int], list[int]]:
        """The pool without a share for another split, and that share."""
        if len(pool) < 2:
            raise BadInput(f"{self.path} has {len(pool)} train images, too few to take {split} from")
        count = max(1, round(_VAL_SHARE * len(pool)))
        seed = self.choices.seed + (1 if split == "val" else 2)
        if self.grouped:
            train, taken = self._whole(pool, (1 - _VAL_SHARE, _VAL_SHARE), ("train", split), seed)
        else:
            images = Counter(self.said.labels[i] for i in pool)
            several = [i for i in pool if images[self.said.labels[i]] > 1]  # the only image of a class is for training
            taken = self._drawn(several if len(several) > count else pool, count, seed)
            train = sorted(set(pool) - set(taken))
        if "val" not in self.made:
            self.notes.append(f"there are no {split} images, so {len(taken):,} of train were taken for it")
        return train, taken

    def _drawn(self, pool: list[int], count: int, seed: int) -> list[int]:
        return [pool[place] for place in stratified([self.said.labels[i] for i in pool], count, seed)]

    def _whole(self, pool: list[int], shares: Sequence[float], splits: Sequence[str], seed: int) -> list[list[int]]:
        groups = [self.groups[i] for i in pool]
        if (there := len(set(groups))) < len(shares):
            raise BadInput(
                f"{self.path} has {there} {'group' if there == 1 else 'groups'}, too few for {', '.join(splits)}, "
                f"as {_HINT}"
            )
        parts = whole_groups([self.said.labels[i] for i in pool], groups, shares, seed)
        return [[pool[place] for place in part] for part in parts]

    def _look(self, splits: dict[str, list[int]]) -> None:
        """Note what is odd about the division."""
        if self.grouped:
            counts = {split: len({self.groups[i] for i in found}) for split, found in splits.items()}
            listed = ", ".join(f"{count:,} in {split}" for split, count in counts.items())
            self.notes.append(f"groups were kept whole: {listed}")
        classes = {split: {self.said.labels[i] for i in found} for split, found in splits.items()}
        for split in ("val", "test"):
            if split in self.made and (without := len(classes["train"] - classes[split])):
                what = "groups" if self.grouped else "images"
                self.notes.append(
                    f"{split} has none of {without} of the {len(classes['train'])} classes, of which "
                    f"there are too few {what}"
                )
