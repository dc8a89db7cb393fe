"""The front of what was tried, cost against score: what is not dominated, its area, and a drawing of letters."""

from collections.abc import Sequence
from typing import TypeAlias

Point: TypeAlias = tuple[float, float]  # a cost, and a score, of which more is better

COLUMNS, ROWS = 56, 10


def front(points: Sequence[Point]) -> list[Point]:
    """Return the points that no other is as cheap and as good as, cheapest first."""
    found: list[Point] = []
    for cost, score in sorted(set(points), key=lambda point: (point[0], -point[1])):
        if not found or score > found[-1][1]:
            found.append((cost, score))
    return found


def hypervolume(points: Sequence[Point], most: float, least: float) -> float:
    """Return the area that a front dominates: below cost `most` and above score `least`. Exact.

    Source: Zitzler and Thiele 1998, of two objectives.
    """
    inside = front([(cost, score) for cost, score in points if cost < most and score > least])
    ends = [cost for cost, _ in [*inside, (most, 0.0)][1:]]
    return sum((end - cost) * (score - least) for (cost, score), end in zip(inside, ends, strict=True))


def drawing(points: Sequence[Point], cost_name: str, score_name: str) -> str:
    """Return the points as lines of letters, the front as "o", all else as "."; costs to the right, scores upwards."""
    best = front(points)
    costs, scores = ([point[axis] for point in points] for axis in (0, 1))
    low, high = min(costs), max(costs)
    worst, top = min(scores), max(scores)
    lines = [[" "] * COLUMNS for _ in range(ROWS)]
    for letter, some in ((".", points), ("o", best)):
        for cost, score in some:
            column = round((cost - low) / (high - low) * (COLUMNS - 1)) if high > low else 0
            row = round((top - score) / (top - worst) * (ROWS - 1)) if top > worst else 0
            lines[row][column] = letter
    marks = {0: f"{top:8.2f} ", ROWS - 1: f"{worst:8.2f} "}
    drawn = [f"{marks.get(row, ' ' * 9)}|{''.join(line)}".rstrip() for row, line in enumerate(lines)]
    ends = f"{low:.2f}x".ljust(COLUMNS - 6) + f"{high:.2f}x"
    return "\n".join([f"{score_name}, of {len(points)} networks", *drawn, " " * 10 + ends + f"  of the {cost_name}"])
