"""A comparison as a Markdown table."""

from idat_tune.replay.compare import BASE, QUARTER, Comparison, Curve, Point
from idat_tune.search.config import ExploreConfig


def markdown(comparison: Comparison) -> str:
    """A row per setting: after a search's usual trials, at a quarter of the base's epochs, when it reaches the base."""
    base = comparison.base
    lines = [
        f"### {comparison.task}",
        "",
        f"Test accuracy in percent of the default config {100 * comparison.default:.2f}, of the best recorded one "
        f"{100 * comparison.best:.2f}, of what the base chooses {100 * base.test_accuracy:.2f} ± "
        f"{100 * base.standard_error:.2f} after {base.epochs:.0f} epochs.",
        "",
        "| setting | replays | trials | epochs: explore + confirm | test accuracy, % | below default | worst "
        f"| parameters | at {QUARTER} epochs | epochs to reach the base |",
        "|---|---:|---:|---:|---:|---:|---:|---:|---:|---:|",
        *[_row(curve, base.test_accuracy) for curve in comparison.curves],
        "",
    ]
    return "\n".join(lines)


def _row(curve: Curve, wanted: float) -> str:
    shown = _usual(curve)
    at_quarter, reached = curve.accuracy_at(QUARTER), curve.epochs_to(wanted)
    cells = [
        curve.setting,
        str(curve.replays),
        str(shown.trials),
        f"{shown.explored:.0f} + {shown.confirmed:.0f}",
        f"{100 * shown.test_accuracy:.2f} ± {100 * shown.standard_error:.2f}",
        f"{100 * shown.below_default:.1f} %",
        f"{100 * shown.worst:+.2f}",
        f"{shown.trainable_params:,.0f}",
        "-" if at_quarter is None else f"{100 * at_quarter:.2f}",
        "not reached" if reached is None else f"{reached:.0f}",
    ]
    return f"| {' | '.join(cells)} |"


def _usual(curve: Curve) -> Point:
    """After as many trials as a search has by default, if so many were replayed; the base always after its own."""
    usual = [point for point in curve.points if point.trials <= ExploreConfig().trials]
    return curve.points[-1] if curve.setting == BASE else usual[-1]
