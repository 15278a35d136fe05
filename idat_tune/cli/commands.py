"""All commands together."""

from idat_tune.cli import away, bench, clusters, exports, images, look, pages, runs, training, use
from idat_tune.cli.shared import app

__all__ = ["app", "away", "bench", "clusters", "exports", "images", "look", "pages", "runs", "training", "use"]
