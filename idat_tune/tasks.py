"""The tasks: classes, group, split sizes and the defaults that the paper gives each of them."""

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from idat_tune.class_names import CLASS_NAMES
from idat_tune.errors import BadInput, unknown

GROUPS = ("natural", "specialized", "structured", "embedded", "own")
VTAB = GROUPS[:3]  # the groups of the 19 tasks of VTAB-1K
SPLITS = ("train", "val", "trainval", "test")


@dataclass(frozen=True)
class Task:
    """One image classification task; those of VTAB-1K have 1,000 training images.

    The training recipe (`lr`, `weight_decay`, `drop_path`) is the paper's, Table 13.
    """

    name: str
    title: str  # as papers print it
    group: str  # one of GROUPS
    classes: int
    test: int  # images in the test split
    lr: float
    weight_decay: float
    drop_path: float
    aliases: tuple[str, ...] = ()
    class_names: tuple[str, ...] = ()  # in the order of the labels; empty where not known
    student: str = "vit_base"
    epochs: int = 100
    train: int = 800  # images in the train split
    val: int = 200  # images in the val split

    @property
    def embedded(self) -> bool:
        """Whether the package itself brings the images."""
        return self.group == "embedded"


def _vtab(name, title, group, classes, test, lr, weight_decay, drop_path, *aliases) -> Task:  # type: ignore[no-untyped-def]
    known = CLASS_NAMES.get(name, ())
    return Task(name, title, group, classes, test, lr, weight_decay, drop_path, aliases, known)


def _embedded(name: str, title: str, test: int, class_names: tuple[str, ...]) -> Task:
    return Task(
        name,
        title,
        "embedded",
        len(class_names),
        test,
        lr=1e-2,
        weight_decay=5e-5,
        drop_path=0.0,
        class_names=class_names,
        student="glyph_base",
        epochs=10,
    )


# In the paper's row order. SmallNORB-elevation has 9 classes: the paper's Table 12 says 18, its code
# and the data say 9.
TASKS = {
    task.name: task
    for task in (
        _vtab("cifar", "CIFAR-100", "natural", 100, 10000, 5e-3, 5e-5, 0.0, "cifar100"),
        _vtab("caltech101", "Caltech101", "natural", 102, 6084, 1e-3, 5e-2, 0.1, "caltech"),
        _vtab("dtd", "DTD", "natural", 47, 1880, 5e-3, 5e-5, 0.0),
        _vtab("oxford_flowers102", "Flowers102", "natural", 102, 6149, 5e-3, 5e-5, 0.0, "flowers102", "flowers"),
        _vtab("oxford_iiit_pet", "Pets", "natural", 37, 3669, 5e-3, 5e-5, 0.0, "pets", "oxford_pet", "oxford_pets"),
        _vtab("svhn", "SVHN", "natural", 10, 26032, 1e-2, 5e-5, 0.0, "svhn_cropped"),
        _vtab("sun397", "Sun397", "natural", 397, 21750, 5e-3, 5e-5, 0.0, "sun"),
        _vtab("patch_camelyon", "Patch Camelyon", "specialized", 2, 32768, 5e-3, 5e-5, 0.0, "camelyon", "pcam"),
        _vtab("eurosat", "EuroSAT", "specialized", 10, 5400, 3e-3, 5e-2, 0.2),
        _vtab("resisc45", "Resisc45", "specialized", 45, 6300, 2e-3, 5e-5, 0.1, "resisc"),
        _vtab("diabetic_retinopathy", "Retinopathy", "specialized", 5, 42670, 5e-3, 5e-5, 0.2),
        _vtab("clevr_count", "Clevr/count", "structured", 8, 15000, 2e-3, 5e-2, 0.1, "clevr_count_all"),
        _vtab("clevr_dist", "Clevr/distance", "structured", 6, 15000, 5e-2, 5e-2, 0.1, "clevr_closest_object_distance"),
        _vtab("dmlab", "DMLab", "structured", 6, 22735, 5e-3, 5e-5, 0.1),
        _vtab("kitti", "KITTI/distance", "structured", 4, 711, 1e-2, 5e-5, 0.0, "kitti_closest_vehicle_distance"),
        _vtab("dsprites_loc", "dSprites/loc", "structured", 16, 73728, 1e-2, 5e-5, 0.0, "dsprites/location"),
        _vtab("dsprites_ori", "dSprites/ori", "structured", 16, 73728, 5e-3, 5e-5, 0.2, "dsprites/orientation"),
        _vtab("smallnorb_azi", "SmallNORB/azi", "structured", 18, 12150, 2e-2, 5e-5, 0.1, "smallnorb/azimuth"),
        _vtab("smallnorb_ele", "SmallNORB/ele", "structured", 9, 12150, 5e-3, 5e-2, 0.2, "smallnorb/elevation"),
        _embedded("digits", "Digits", 797, tuple("0123456789")),
        _embedded("sprites_loc", "Sprites/loc", 4000, tuple(f"column {i}" for i in range(16))),
        _embedded("sprites_ori", "Sprites/ori", 4000, tuple(f"{22.5 * i:g} degrees" for i in range(16))),
    )
}


def key(name: str) -> str:
    """The spelling under which names of tasks are compared: `Clevr/count`, `clevr-count` and `clevr_count` are one."""
    return re.sub(r"[-\s/]", "_", name.strip().lower())


_UNUSABLE: dict[str, str] = {}  # key of a task -> why it cannot be used
_BY_KEY = {key(name): task for task in TASKS.values() for name in (task.name, task.title, *task.aliases)}


_own_tasks: list[Callable[[], object]] = []  # that register the user's own tasks; see `learn_from`


def learn_from(register_own: Callable[[], object]) -> None:
    """Have that called whenever a name is asked for that is not known; it may `register` more tasks."""
    _own_tasks[:] = [register_own]


def find(name: str) -> Task | None:
    """The task of that name, alias or printed title, if one is known by now."""
    return _BY_KEY.get(key(name))


def seek(name: str) -> Task | None:
    """As `find`, also among the user's own tasks that nobody has asked for yet."""
    if find(name) is None:
        _learn()
    return find(name)


def _learn() -> None:
    for register_own in _own_tasks:
        register_own()


def get(name: str) -> Task:
    """The task of that name, alias or printed title (upper and lower case alike).

    Raises:
        BadInput: no task goes by that name.
    """
    task = seek(name)
    if task is None:
        raise _not_there(name, TASKS)
    return task


def register(task: Task) -> Task:
    """Make a task of the user's own known by its name for the rest of this process; again replaces it.

    Raises:
        BadInput: its name is that of a built-in task or of a group.
    """
    taken = find(task.name)
    if taken is not None and taken.group != "own":
        raise BadInput(f"'{task.name}' already names the task {taken.title}; choose another name")
    if key(task.name) in ("all", *GROUPS):
        raise BadInput(f"'{task.name}' is a group of tasks; choose another name")
    TASKS[task.name] = _BY_KEY[key(task.name)] = task
    return task


def set_unusable(name: str, why: str) -> None:
    """Have a task of the user's own that is there but cannot be used answered with `why`, instead of as unknown."""
    _UNUSABLE[key(name)] = why


def select(names: Iterable[str]) -> list[Task]:
    """Tasks for a list of names in which a group, or `all` (the 19 of VTAB-1K), stands for its tasks.

    Each task comes once, in the order first named.

    Raises:
        BadInput: there is no such task, or a group has none yet.
    """
    chosen: dict[str, Task] = {}
    for name in names:
        for task in _expand(name):
            chosen[task.name] = task
    return list(chosen.values())


def _expand(name: str) -> list[Task]:
    group = key(name)
    if group == "all":
        return [task for task in TASKS.values() if task.group in VTAB]
    if group == "own":
        _learn()
    if group in GROUPS:
        found = [task for task in TASKS.values() if task.group == group]
        if not found:  # of the user's own
            raise BadInput(
                "no task of your own is imported yet; `idat-tune data import --from FOLDER --task NAME` makes one of "
                "your images"
            )
        return found
    task = seek(name)
    if task is None:
        raise _not_there(name, ["all", *GROUPS, *TASKS])
    return [task]


def _not_there(name: str, known: Iterable[str]) -> BadInput:
    why = _UNUSABLE.get(key(name))
    return BadInput(why) if why else unknown("task", name, known)
