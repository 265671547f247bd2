"""What benchmarks print: figures, and the bars that they are held to."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any

__all__ = ["Report", "spread"]


@dataclass
class Report:
    """Figures by name, and the bars that they are held to."""

    figures: dict[str, Any] = field(default_factory=dict)
    bars: list[tuple[str, float, str, float]] = field(default_factory=list)

    def bar(self, name: str, value: float, relation: str, limit: float) -> None:
        """Hold a value to a bar."""
        self.bars.append((name, value, relation, limit))

    @property
    def reached(self) -> bool:
        """Whether every bar was reached."""
        return all(_holds(value, relation, limit) for _, value, relation, limit in self.bars)

    def as_json(self) -> str:
        """All of it as JSON."""
        bars = [
            {
                "name": name,
                "value": round(value, 4),
                "bar": f"{relation} {limit:g}",
                "reached": _holds(value, relation, limit),
            }
            for name, value, relation, limit in self.bars
        ]
        return json.dumps({"figures": self.figures, "bars": bars, "reached": self.reached}, indent=2)

    def as_table(self) -> str:
        """All of it for a person."""
        lines = []
        for name, figure in self.figures.items():
            shown = (
                "  ".join(f"{key} {value:g}" for key, value in figure.items()) if isinstance(figure, dict) else figure
            )
            lines.append(f"{name:<42} {shown}")
        lines.append("")
        for name, value, relation, limit in self.bars:
            verdict = "reached" if _holds(value, relation, limit) else "MISSED"
            lines.append(f"{name:<42} {value:8.3f}  {relation} {limit:<6g} {verdict}")
        return "\n".join(lines)


def _holds(value: float, relation: str, limit: float) -> bool:
    return value <= limit if relation == "<=" else value >= limit


def spread(seconds: list[float]) -> dict[str, float]:
    """Median and 90th percentile of some times, in milliseconds."""
    ordered = sorted(seconds)
    return {
        "p50_ms": _ms(ordered[len(ordered) // 2]),
        "p90_ms": _ms(ordered[len(ordered) * 9 // 10]),
        "n": len(ordered),
    }


def _ms(seconds: float) -> float:
    return round(seconds * 1000, 3)
