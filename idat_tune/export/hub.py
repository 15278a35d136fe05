"""Exports on the Hugging Face hub: fetched from there, or put there."""

import re
from pathlib import Path

from idat_tune.errors import BadInput, IdatError, shown
from idat_tune.export.folder import FILES, STUDENTS, TEACHER, is_export

PATIENCE = 5.0  # seconds to wait for the hub's first answer
_REPOSITORY = re.compile(r"[\w-][\w.-]*/[\w-][\w.-]*", re.ASCII)
_WANTED = [*FILES, *STUDENTS.values(), TEACHER]  # all that is fetched, whatever else a repository has


def is_repository(name: str) -> bool:
    """Whether a name can be that of a repository, `owner/name`."""
    return _REPOSITORY.fullmatch(name) is not None


def fetched(repository: str) -> Path:
    """The folder with the export that a repository of the hub has, in the cache; fetched if it is not there yet.

    Raises:
        BadInput: it cannot be had, or holds no export.
    """
    import huggingface_hub

    try:
        folder = huggingface_hub.snapshot_download(repository, allow_patterns=_WANTED, etag_timeout=PATIENCE)
    except Exception as failure:  # of the hub's client and of its HTTP library, which changes with its version
        raise BadInput(
            f"{repository} cannot be fetched from the hub ({_short(failure)}); connect once so that it reaches the "
            "cache, or name an export folder"
        ) from None
    if not is_export(Path(folder)):
        raise BadInput(f"{repository} on the hub holds no export of idat-tune; name another")
    return Path(folder)


def check_login(repository: str) -> None:
    """Refuse what cannot be put on the hub, before anything is made for it.

    Raises:
        BadInput: that is no name of a repository, or nobody is logged in.
    """
    import huggingface_hub

    if not is_repository(repository):
        raise BadInput(f"--push-to-hub {shown(repository)} is no repository of the hub; it is owner/name")
    if huggingface_hub.get_token() is None:
        raise BadInput("--push-to-hub wants a login of yours: run `hf auth login` once, or set HF_TOKEN")


def pushed(folder: Path, repository: str) -> str:
    """Put an export into a repository, which is made private if it is new; returns its address.

    What an earlier export of another format left there is removed.

    Raises:
        BadInput: nobody is logged in.
        IdatError: the hub does not take it.
    """
    import huggingface_hub

    check_login(repository)
    api = huggingface_hub.HfApi()
    try:
        place = api.create_repo(repository, private=True, exist_ok=True)
        api.upload_folder(
            repo_id=repository,
            folder_path=folder,
            commit_message=f"Export {folder.name} of idat-tune",
            delete_patterns=[*STUDENTS.values(), TEACHER],
        )
    except Exception as failure:  # as above
        raise IdatError(
            f"the hub did not take {folder} as {repository} ({_short(failure)}); the folder is there, and the same "
            "command tries again"
        ) from None
    return str(place)


def _short(failure: Exception) -> str:
    lines = [line.strip() for line in str(failure).splitlines() if line.strip()]
    return f"{type(failure).__name__}: {shown(lines[0] if lines else '', 160)}"
