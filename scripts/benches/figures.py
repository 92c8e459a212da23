"""Figures: what a benchmark found, one number each, and how they are printed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace


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


def compare(figures: Sequence[Figure], server: str, rivals: Sequence[str]) -> list[Figure]:
    """Give the figures of a server their ratios; one that has several rivals in its scenario is there several times."""
    values = {(figure.scenario, figure.server, figure.metric): figure.value for figure in figures}

    def ratios(figure: Figure) -> Iterator[Figure]:
        for rival in rivals:
            value = values.get((figure.scenario, rival, figure.metric))
            if value:
                yield replace(figure, ratio_to=rival, ratio=figure.value / value)

    return [
        result
        for figure in figures
        for result in ((list(ratios(figure)) if figure.server == server else []) or [figure])
    ]


def table(figures: Sequence[Figure]) -> str:
    """For each scenario a table: a line for each server (and for each ratio), a column for each metric."""
    return "\n\n".join(
        f"{scenario}\n{_grid([figure for figure in figures if figure.scenario == scenario])}"
        for scenario in _unique(figure.scenario for figure in figures)
    )


def _grid(figures: Sequence[Figure]) -> str:
    metrics = _unique(figure.metric for figure in figures)
    rows = [["", *metrics]]
    for server in _unique(figure.server for figure in figures):
        own = [figure for figure in figures if figure.server == server]
        cells = {figure.metric: _number(figure.value, figure.unit) for figure in own}
        rows.append([server, *(cells.get(metric, "") for metric in metrics)])
        for rival in _unique(figure.ratio_to for figure in own if figure.ratio_to):
            ratios = {figure.metric: f"{figure.ratio:.2f}×" for figure in own if figure.ratio_to == rival}
            rows.append([f"  ÷ {rival}", *(ratios.get(metric, "") for metric in metrics)])
    widths = [max(len(row[column]) for row in rows) for column in range(len(metrics) + 1)]
    return "\n".join(_line(row, widths) for row in rows)


def _line(row: Sequence[str], widths: Sequence[int]) -> str:
    first, *rest = zip(row, widths, strict=True)
    return "  ".join([first[0].ljust(first[1]), *(cell.rjust(width) for cell, width in rest)]).rstrip()


def _number(value: float, unit: str) -> str:
    digits = 0 if abs(value) >= 100 or value == int(value) else 2 if abs(value) < 10 else 1
    return f"{value:,.{digits}f} {unit}".rstrip()


def _unique(names: Iterator[str]) -> list[str]:
    return list(dict.fromkeys(names))
