"""Figures: what a benchmark found, one number each, and how they are printed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass


@dataclass(frozen=True, slots=True)
class Figure:
    """One measured number; `ratio` is value ÷ the same figure of the peer `ratio_to`, when there was one in the run."""

    bench: str
    scenario: str
    server: str
    metric: str
    value: float
    unit: str
    ratio_to: str | None = None
    ratio: float | None = None

    def as_json(self) -> dict[str, object]:
        return asdict(self)


def percentile(sorted_values: Sequence[float], percent: float) -> float:
    """The value that `percent` of the sorted values do not exceed."""
    return sorted_values[min(len(sorted_values) - 1, int(len(sorted_values) * percent / 100))]


def table(figures: Sequence[Figure]) -> str:
    """Figures as aligned columns."""
    rows = [("scenario", "server", "metric", "value", "ratio")]
    for figure in figures:
        ratio = f"{figure.ratio:.2f} × {figure.ratio_to}" if figure.ratio is not None else ""
        rows.append((figure.scenario, figure.server, figure.metric, f"{figure.value:,.2f} {figure.unit}", ratio))
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return "\n".join("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in rows)
