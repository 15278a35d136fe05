"""Finds the file of a backbone's weights: in a folder of the user's own, in the Hugging Face cache, on the hub."""

import os
import time
from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path

from idat_tune.backbones import EMBEDDED, NO_TEACHER, RANDOM
from idat_tune.errors import BadInput
from idat_tune.weights import names
from idat_tune.weights.reading import first_line, holds_original_vit

FOLDER = "IDAT_TUNE_WEIGHTS"  # environment variable, which `--weights` sets; Ray's workers inherit it
PATIENCE = 5.0  # seconds to wait for the hub's first answer
SHOWN = 6  # names of a list that a sentence shows


def available(backbone: str) -> bool:
    """Whether the weights of a backbone can be had: none are needed, they are here, or the hub has them."""
    if backbone == NO_TEACHER or backbone.startswith(RANDOM) or backbone in EMBEDDED:
        return True
    full = names.timm_name(backbone)
    return here(full) is not None or isinstance(_offered(full), str)


def missing(backbones: Iterable[str]) -> list[str]:
    """Those of some backbones whose weights cannot be had."""
    return [backbone for backbone in backbones if not available(backbone)]


def find(full: str) -> Path:
    """The file with the weights of a timm model, named with its tag; fetched from the hub if it is nowhere else.

    Raises:
        BadInput: it cannot be had; says where it looked, and what lies there.
    """
    return here(full) or _from_hub(full)


def here(full: str) -> Path | None:
    """The file, as far as it is on this machine."""
    return in_folder(full) or in_cache(full)


def in_folder(full: str) -> Path | None:
    """The file in the folder that IDAT_TUNE_WEIGHTS names, if it is set and has one.

    It is called as `names.file_names` has it; or it lies, as on the hub, in a folder of `names.folder_names`, or in a
    copy of the Hugging Face cache. The named folder may be such a folder itself.

    Raises:
        BadInput: there is no such folder.
    """
    folder = _folder()
    if folder is None:
        return None
    return next((path for path in _candidates(folder, full) if path.is_file() and _is_of(path, full)), None)


def _folder() -> Path | None:
    named = os.environ.get(FOLDER)
    if not named:
        return None
    folder = Path(named).expanduser()
    if folder.is_file():
        raise BadInput(f"weights folder {folder} is a file; --weights or {FOLDER} names the folder that holds it")
    if not folder.is_dir():
        raise BadInput(f"weights folder {folder} does not exist; --weights or {FOLDER} must name one")
    return folder


def _candidates(folder: Path, full: str) -> Iterator[Path]:
    yield from (folder / name for name in names.file_names(full))
    yield from (folder / name / file for name in names.folder_names(full) for file in _in_hub_folder(full))
    yield from (path for name in names.cache_names(full) for path in _snapshots(folder, name))
    if folder.name in names.folder_names(full):
        yield from (folder / file for file in names.HUB_FILES)


def _in_hub_folder(full: str) -> tuple[str, ...]:
    return (*names.HUB_FILES, *names.file_names(full))


def _snapshots(folder: Path, name: str) -> Iterator[Path]:
    """The files of a repository in a copy of the Hugging Face cache: of its main revision first."""
    for home in (folder / name, folder / "hub" / name):
        if not (home / "snapshots").is_dir():
            continue
        main = home / "refs" / "main"
        first = main.read_text(encoding="utf-8").strip() if main.is_file() else ""
        revisions = sorted(path.name for path in (home / "snapshots").iterdir())
        ordered = dict.fromkeys([*([first] if first in revisions else []), *revisions])
        yield from (home / "snapshots" / revision / file for revision in ordered for file in names.HUB_FILES)


def _is_of(path: Path, full: str) -> bool:
    """Whether a file under a name that the original ViT's weights and AugReg's share is of the ones that are meant."""
    if path.name not in names.google_files(full):
        return True
    original = holds_original_vit(path)
    return original is None or original == full.endswith(".orig_in21k")


def in_cache(full: str) -> Path | None:
    """The file in the Hugging Face cache; None if it was never fetched."""
    from huggingface_hub import try_to_load_from_cache

    for repository in names.repositories(full):
        for file in names.HUB_FILES:
            path = try_to_load_from_cache(repository, file)
            if isinstance(path, str):
                return Path(path)
    return None


def _from_hub(full: str) -> Path:
    from huggingface_hub import hf_hub_download

    offered = _offered(full)
    if not isinstance(offered, str):
        raise _missing(full, str(offered))
    try:
        return Path(hf_hub_download(offered, names.HUB_FILES[0]))
    except Exception as failure:  # of the hub's client and of its HTTP library, which changes with its version
        raise _missing(full, f"the hub gave {_short(failure)}") from failure


def _offered(full: str) -> str | Exception:
    """The repository of the hub that has the weights, or why there is none."""
    from huggingface_hub import constants

    if not names.repositories(full):
        return Exception("no pretrained weights of it are published")
    if constants.HF_HUB_OFFLINE:
        return Exception("the hub is switched off by HF_HUB_OFFLINE")
    minute = int(time.monotonic() // 60)  # a hub that did not answer may be back then
    return _asked(names.repositories(full)[0], (constants.HUGGINGFACE_CO_URL_TEMPLATE, minute))


@cache
def _asked(repository: str, hub: tuple[str, int]) -> str | Exception:
    """Asked once a minute, with little patience: a download without network tries again for half of one."""
    from huggingface_hub import get_hf_file_metadata, hf_hub_url

    if hub in _silent:
        return _silent[hub]
    try:
        get_hf_file_metadata(hf_hub_url(repository, names.HUB_FILES[0]), timeout=PATIENCE)
        return repository
    except Exception as failure:  # as above
        found = Exception(f"the hub gave {_short(failure)}")
        if not hasattr(failure, "response"):  # it did not answer at all, and would not for another repository
            _silent[hub] = found
        return found


_silent: dict[tuple[str, int], Exception] = {}  # hubs that did not answer this process


def _missing(full: str, why: str) -> BadInput:
    folder = _folder()
    wanted = [*names.called(full), *names.published(full)]
    looked = f"looked in {folder} for {_first(wanted)} ({', '.join(names.ENDS[:5])}, or a folder of the hub)"
    lies = f"{looked}; there: {_lies_in(folder)}; also " if folder else "looked "
    return BadInput(
        f"the weights of {full} are not here and {why}; {lies}in the Hugging Face cache for "
        f"{' and '.join(names.repositories(full)) or 'nothing'}; connect once so that they reach the cache, or put "
        f"{full}.safetensors into a folder and name it with --weights or {FOLDER}{_confused(folder, full)}"
    )


def _confused(folder: Path | None, full: str) -> str:
    """A word on a file under a right name that has the other of two weights which share it."""
    for path in (folder / name for name in names.google_files(full)) if folder else ():
        if path.is_file() and not _is_of(path, full):
            tags = "orig_in21k", "augreg_in21k"
            other = full.replace(*(tags if full.endswith(tags[0]) else tags[::-1]))
            return f"; {path.name} there has those of {names.called(other)[-1]}, so ask for that if they are meant"
    return ""


def _first(known: Iterable[str]) -> str:
    return ", ".join(list(known)[:SHOWN])


def _lies_in(folder: Path | None) -> str:
    found = sorted(path.name + ("/" if path.is_dir() else "") for path in folder.iterdir()) if folder else []
    found = [name for name in found if not name.startswith(".")]
    more = f" and {len(found) - SHOWN} more" if len(found) > SHOWN else ""
    return _first(found) + more if found else "nothing"


def _short(failure: Exception) -> str:
    return f"{type(failure).__name__}: {first_line(failure)}"
