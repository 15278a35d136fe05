"""Hyperparameter search for inverse-distillation adapter tuning of vision transformers."""

from typing import Any

from idat_tune import tasks

__version__ = "0.1.0"
__all__ = ["RunConfig", "SearchConfig", "load", "load_many"]


def _register_own() -> None:
    from idat_tune import data  # no sooner, as it stands below what asks for tasks

    data.register_own()


tasks.learn_from(_register_own)


def __getattr__(name: str) -> Any:
    # Lazily, so that `import idat_tune` alone loads nothing heavy.
    if name == "RunConfig":
        from idat_tune.config import RunConfig

        return RunConfig
    if name == "SearchConfig":
        from idat_tune.search.config import SearchConfig

        return SearchConfig
    if name in ("load", "load_many"):
        from idat_tune import students

        return students.load if name == "load" else students.load_many
    raise AttributeError(f"module 'idat_tune' has no attribute '{name}'")
