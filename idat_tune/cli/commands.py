"""All commands together."""

from idat_tune.cli import bench, images, look, runs, use
from idat_tune.cli.shared import app

__all__ = ["app", "bench", "images", "look", "runs", "use"]
