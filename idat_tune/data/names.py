"""What the names of folders tell: splits, no classes, and which are the same to a person."""

from __future__ import annotations

import re
import unicodedata

from idat_tune.data.own import SPLITS_BY_NAME

_WORDS = {**SPLITS_BY_NAME, "trainval": "train"}
# Words that may stand beside that of a split, as in train_images, 'Training Set', testset and val2017.
_PLAIN = re.compile("sets?|data|datasets?|images?|imgs?|pictures|photos|split|folder|files")
_FUSED = re.compile(f"({'|'.join(_WORDS)})(?:{_PLAIN.pattern})")
# Words of folders beside splits that are no class: images without labels, or shown for a taste.
_NO_CLASS = re.compile("preds?|predict|predictions?|unlabell?ed|inference|demo|examples?|samples?|submission")
# Names that tell what files are, and not what is on them.
_ANY = re.compile("images?|imgs?|data|datasets?|annotations?|masks?|labels?")


def split_of(name: str) -> tuple[str, bool] | None:
    """The split that a folder's name tells, and whether it can hardly be anything else.

    train, Test and valid tell it for sure, as do train_images and val2017; seg_train might also be a class.
    """
    words = [match.group(1) if (match := _FUSED.fullmatch(word)) else word for word in _words(name)]
    splits = {_WORDS[word] for word in words if word in _WORDS}
    if len(splits) != 1:
        return None
    return splits.pop(), all(word in _WORDS or _PLAIN.fullmatch(word) for word in words)


def folded(name: str) -> str:
    """A name without what people write now so, now so: case, spaces, the form of accents."""
    return " ".join(unicodedata.normalize("NFKC", name).casefold().split())


def is_split(name: str) -> bool:
    """Whether a folder's name tells a split, and can hardly be anything else."""
    split = split_of(name)
    return split is not None and split[1]


def no_class(name: str) -> bool:
    """Whether a folder beside splits is none of the classes by its name."""
    return any(map(_NO_CLASS.fullmatch, _words(name)))


def tells_nothing(name: str) -> bool:
    """Whether a folder's name only says that its files are images or labels, as that of no class does."""
    words = _words(name)
    return bool(words) and all(map(_ANY.fullmatch, words))


def _words(name: str) -> list[str]:
    """The words of a name, in small letters; trainImages has two."""
    spaced = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", unicodedata.normalize("NFKC", name))
    return re.findall(r"[^\W\d_]+", spaced.lower())
