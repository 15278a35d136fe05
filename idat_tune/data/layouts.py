"""Which folders are splits and which are classes: read from their names and what lies in them, or refused."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from idat_tune.data.names import folded, is_split, no_class, split_of, tells_nothing
from idat_tune.data.trees import Folder, LeftOut, number, some
from idat_tune.errors import BadInput, printable

LAYOUTS = ("auto", "classes", "splits", "parts")


@dataclass(frozen=True)
class Part:
    """A folder with images of one class, in one split or not yet divided."""

    split: str | None  # train, val or test
    label: str  # as the folder is called
    folder: Folder


@dataclass
class Layout:
    """The parts of a source, and what is to be said of them."""

    parts: list[Part] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    skipped: dict[str, str] = field(default_factory=dict)  # paths of folders that are not taken, and what is said


@dataclass(frozen=True)
class _Split:
    """A folder called like a split, and the class folders in it."""

    name: str  # train, val or test
    folder: Folder
    classes: dict[str, Folder]  # empty: its images have no labels

    @property
    def labels(self) -> set[str]:
        return {folded(label) for label in self.classes}


def find(root: Folder, where: str, layout: str, left: LeftOut) -> Layout:
    """The classes, and splits, that the folders of a source are.

    Args:
        root: the source.
        where: what it is called, for messages.
        layout: auto, or how the folders are to be read: as classes; as splits that have the classes in them; as parts
            (years, cameras, ...) of which each has some of the classes in it, and which are taken together.
        left: gets what is not taken.

    Raises:
        BadInput: no classes, or folders that can be read in two ways; names both, and what decides.
    """
    base = _unwrapped(root, left)
    if not base.inner():
        raise BadInput(_nothing(base, where))
    found = Layout()
    if layout == "classes":
        _take_classes(base, found)
    elif layout == "parts":
        for one in base.inner().values():
            found.parts += [Part(None, name, folder) for name, folder in one.inner().items()]
    elif layout == "splits":
        splits, others = _sorted(base, certain=True)
        if not any(split.classes for split in splits):
            splits, others = _sorted(base, certain=False)
        _take_splits(splits, others, found)
    else:
        splits, others = _sorted(base, certain=True)
        _check(splits, others, where)
        if any(split.classes for split in splits):
            _take_splits(splits, others, found)
            _check_depth(found, where, "--layout splits", "move what is in it up")
        else:
            if splits:
                found.notes.append(f"taken as classes, as no class folders are in them: {_names(splits)}")
            _take_undivided(base, found, where)
    if not found.parts:
        there = _some(base.inner().values())
        raise BadInput(f"{where} has no folders such as --layout {layout} wants; it has: {there}")
    _account(base, found, left)
    return found


def _unwrapped(base: Folder, left: LeftOut) -> Folder:
    """The folder in which it begins, where a source has nothing but one folder with folders in it."""
    while len(inner := base.inner()) == 1:
        (only,) = inner.values()
        within = only.inner()
        if not within or (is_split(only.name) and not all(is_split(name) for name in within)):
            return base  # a lone train/ is a split, a lone test/ with train/ and val/ in it is not
        _leave(base, left, {only.name})
        base = only
    return base


def _sorted(base: Folder, certain: bool) -> tuple[list[_Split], list[Folder]]:
    """The folders that are splits by their names, and the others.

    Where it shall be `certain`, a name that might also be a class's (seg_train) counts only if a folder of another
    split has some of the same folders in it.
    """
    inner = base.inner()
    told = {name: split for name in inner if (split := split_of(name))}
    found = {name: _Split(told[name][0], inner[name], _classes(inner[name], told, inner)) for name in told}

    def counts(name: str) -> bool:
        others = (other for other in found.values() if other.name != found[name].name)
        return told[name][1] or not certain or any(found[name].labels & other.labels for other in others)

    splits = [split for name, split in found.items() if counts(name)]
    taken = {split.folder.name for split in splits}
    return splits, [folder for name, folder in inner.items() if name not in taken]


def _classes(split: Folder, splits: Iterable[str], inner: dict[str, Folder]) -> dict[str, Folder]:
    """The class folders of a split; they may be wrapped, as in seg_train/seg_train/.

    test/unknown/ has no labels where other splits have several classes, and none of that name; nor has test/test/.
    """
    known: set[str] = set()
    for name in splits:
        other = inner[name]
        while len(below := other.inner()) == 1:
            (other,) = below.values()
        known |= {folded(label) for label in below}
    while len(below := split.inner()) == 1:
        (only,) = below.values()
        if folded(only.name) in known:
            break
        if not only.inner():
            return {} if known or split_of(only.name) else below
        split = only
    return below


def _check(splits: list[_Split], others: list[Folder], where: str) -> None:
    """Raises BadInput where folders called like splits can be read in two ways."""
    unsure = [folder for folder in others if split_of(folder.name) and folder.inner()]
    strangers = [folder for folder in others if not no_class(folder.name)]
    labelled = [split for split in splits if split.classes]
    flat = [split for split in splits if not split.classes]
    if not labelled:
        tests = [split for split in flat if split.name != "train" and folded(split.folder.name) != "dev"]
        if unsure:
            raise _unclear(where, f"{_some(unsure)} may be a split")
        if flat and not others:
            raise BadInput(
                f"{where} has no class folders in {_names(flat)}: as splits they have no labels; if they are the "
                "classes, say --layout classes, else import a list of paths and labels"
            )
        if tests and len(others) + len(flat) - len(tests) > 1:
            raise _unclear(where, f"{_names(tests)} may be images without labels, to be left out")
        return
    if unsure or strangers:
        raise BadInput(
            f"{where} can be read in two ways: --layout splits takes {_names(splits)} as splits and leaves out "
            f"{_some(strangers or unsure)}, --layout classes takes each of these folders as a class"
        )
    for split in labelled:
        twins = [other for other in splits if other.name == split.name]
        if len(twins) > 1:
            raise BadInput(
                f"{_names(twins)} in {where} would all be {split.name}: --layout splits joins them, --layout classes "
                "takes each folder as a class; or move away what does not belong"
            )
        rest = {label for other in labelled if other.name != split.name for label in other.labels}
        if rest and not rest & split.labels:
            raise _unclear(where, f"{split.folder.name} may be a split, though no other has its folders")
    if any(split.name == "train" for split in flat):
        raise BadInput(
            f"train in {where} has images but no class folders, so they have no labels; make a folder for each class "
            "in it, or import a list of paths and labels"
        )


def _take_splits(splits: list[_Split], others: list[Folder], found: Layout) -> None:
    if not any(split.classes for split in splits):  # then what stands beside them has the labels
        found.parts = [Part(None, folder.name, folder) for folder in others] if splits else []
    else:
        found.skipped |= {folder.path: "" for folder in others}
    for split in splits:
        found.parts += [Part(split.name, label, folder) for label, folder in split.classes.items()]
        if not split.classes:
            found.skipped[split.folder.path] = " without labels"


def _take_undivided(base: Folder, found: Layout, where: str) -> None:
    """Folders that are no splits: the classes, unless that is not sure."""
    inner = base.inner()
    below = {name for folder in inner.values() for name in folder.inner()}
    if below and all(map(is_split, below)) and not any(folder.images for folder in inner.values()):
        if any(deeper.inner() for folder in inner.values() for deeper in folder.inner().values()):
            raise BadInput(f"{where} has several sets with splits of their own: {_some(inner.values())}; import one")
        for label, folder in inner.items():
            told = {name: split[0] for name in folder.inner() if (split := split_of(name))}
            found.parts += [Part(split, label, folder.folders[name]) for name, split in told.items()]
        found.notes.append(f"splits were found within the classes: {printable(some(sorted(below)))}")
        return
    nameless = [folder for folder in inner.values() if tells_nothing(folder.name)]
    if nameless:
        raise BadInput(
            f"{where} can be read in two ways: {_some(nameless)} may hold images without labels, which a list gives "
            "them (import that), or be a class (--layout classes)"
        )
    _take_classes(base, found)
    _check_depth(found, where, "--layout classes", "--layout parts takes the folders in each as classes")
    nested = [f"{folder.path}/{name}" for folder in inner.values() for name in folder.inner()]
    if nested:
        found.notes.append(f"folders within classes were taken as part of them: {printable(some(nested))}")


def _take_classes(base: Folder, found: Layout) -> None:
    found.parts = [Part(None, name, folder) for name, folder in base.inner().items()]


def _check_depth(found: Layout, where: str, upper: str, lower: str) -> None:
    """Raises BadInput where a class has no images but in several folders of its own: these may be the classes."""
    for part in found.parts:
        folder = part.folder
        while not folder.images and len(inner := folder.inner()) == 1:
            (folder,) = inner.values()
        if not folder.images:
            raise BadInput(
                f"{where} can be read in two ways, as {printable(folder.path)} holds folders of images "
                f"({_some(folder.inner().values())}): {upper} takes {printable(part.label)} as one class among "
                f"{len({part.label for part in found.parts}):,}; if its folders are classes or splits, {lower}, or "
                "import one folder only"
            )


def _account(base: Folder, found: Layout, left: LeftOut) -> None:
    """Tell what lies beside the parts, and what is in them beside images."""
    taken = {part.folder.path for part in found.parts}
    waiting = [base]
    while waiting:
        folder = waiting.pop()
        if folder.path in taken:
            for below in folder.walk():
                left.kinds += below.others
        elif folder.path in found.skipped:
            left.folder(folder.path + found.skipped[folder.path], folder.files())
        else:
            _leave(folder, left, set(folder.inner()))
            waiting += folder.inner().values()


def _leave(folder: Folder, left: LeftOut, taken: set[str]) -> None:
    """Leave out what lies in a folder, but for some of its folders."""
    left.kinds += folder.others
    if folder.images:
        place = f"directly in {folder.path}" if folder.path else "in no class folder"
        names = [image.path.rpartition("/")[2] for image in folder.images]
        left.others.append(f"{number(len(names), 'image')} {place} ({some(sorted(names))})")
    for name, below in folder.folders.items():
        if name not in taken:
            left.folder(below.path, below.files())


def _names(splits: Iterable[_Split]) -> str:
    return _some(split.folder for split in splits)


def _some(folders: Iterable[Folder]) -> str:
    return printable(some([folder.name for folder in folders], 6))


def _unclear(where: str, what: str) -> BadInput:
    return BadInput(f"{where} can be read in two ways: {what} (--layout splits), or a class (--layout classes)")


def _nothing(base: Folder, where: str) -> str:
    expected = "expected a folder for each class, or train/, val/ and test/ with those"
    hint = ""
    if any(base.others[kind] for kind in (".zip", ".tar", ".tgz", ".gz", ".bz2", ".xz")):
        hint = "; there is an archive in it, which is imported by its own name"
    if not base.images:
        return f"no images in {where}; {expected}{hint}"
    return (
        f"{number(len(base.images), 'image')} in {where}, but no class folders, so they have no labels; "
        f"{expected}, or a list of paths and labels{hint}"
    )
