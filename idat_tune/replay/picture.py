"""Settings of a search as curves: test accuracy of what is chosen against epochs spent."""

from collections.abc import Sequence
from pathlib import Path

from idat_tune.errors import BadInput
from idat_tune.replay.compare import BASE, Comparison

# More than these would hide one another; the table has them all.
SHOWN = (BASE, "defaults", "portfolio off", "sampler random", "stopping none", "confirm none")


def draw(comparisons: Sequence[Comparison], path: Path) -> None:
    """Write a picture with one panel per task; PNG, SVG or PDF by the file's ending.

    Raises:
        BadInput: no picture has that ending, or the file cannot be written.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5.2 * len(comparisons), 4.2), layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(1, len(comparisons), squeeze=False)[0]
    for panel, comparison in zip(panels, comparisons, strict=True):
        for curve in comparison.curves:
            if curve.setting in SHOWN:
                base = curve.setting == BASE
                panel.errorbar(
                    [point.epochs for point in curve.points],
                    [100 * point.test_accuracy for point in curve.points],
                    yerr=[100 * point.standard_error for point in curve.points],
                    label="random, full budget" if base else curve.setting,
                    color="black" if base else None,
                    marker="o",
                    markersize=3,
                    linewidth=2.2 if curve.setting == "defaults" else 1.2,
                )
        panel.axhline(100 * comparison.default, color="grey", linestyle=":", label="default config")
        panel.axhline(100 * comparison.base.test_accuracy, color="black", linestyle="--", linewidth=0.8)
        panel.set_title(comparison.task)
        panel.set_xlabel("epochs spent, exploring and confirming")
        panel.set_xscale("log", base=2)
        panel.xaxis.set_major_formatter("{x:.0f}")
        panel.grid(alpha=0.3)
    panels[0].set_ylabel("test accuracy of the chosen config, %")
    panels[-1].legend(fontsize=8)
    try:
        figure.savefig(path, dpi=100)
    except (OSError, ValueError) as failure:
        raise BadInput(f"--picture {path} cannot be written: {failure}") from None
