"""Hyperparameter search for inverse-distillation adapter tuning of vision transformers."""

from typing import Any

__version__ = "0.1.0"
__all__ = ["RunConfig", "load"]


def __getattr__(name: str) -> Any:
    # Lazily, so that `import idat_tune` alone loads nothing heavy.
    if name == "RunConfig":
        from idat_tune.config import RunConfig

        return RunConfig
    if name == "load":
        from idat_tune.export import load

        return load
    raise AttributeError(f"module 'idat_tune' has no attribute '{name}'")
