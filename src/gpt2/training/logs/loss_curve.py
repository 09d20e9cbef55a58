"""The curve of a run's losses, `loss.png`, in memory that does not grow with the run."""

from __future__ import annotations

from typing import IO, Any, NamedTuple

MAX_POINTS = 1000  # of a series; more would not be visible
MAX_VALUE = 1e30  # NaN and infinity, and numbers that a picture cannot show, are above it
SMOOTHED_SHARE = 0.02  # share of the run's updates over which the smoothed curve averages
MIN_SMOOTHED_UPDATES = 5
LOSS_LABEL = "loss"
SMOOTHED_LABEL = "smoothed over {:.0f} updates"
VALIDATION_LABEL = "validation loss"
BEST_LABEL = "best: {:.3f} after {:.0f} updates"


class Point(NamedTuple):
    """The mean of neighboring values."""

    cell: int  # the number of the interval of steps, each `Series.width` wide
    n_values: int
    step: float
    value: float


class Series:
    """Values by step. When there are too many, neighbors are replaced by their means.

    The result depends on the values alone, not on where a run was interrupted and resumed.
    """

    def __init__(self) -> None:
        """Start without values."""
        self.width = 1  # steps of an interval
        self.points: list[Point] = []
        self.count = 0  # number of values
        self.best: tuple[float, float] | None = None  # the step and the value of the lowest value

    def add(self, step: int, value: object) -> None:
        """Add a value; anything except a number of usual size is skipped."""
        if not isinstance(value, (int, float)) or not abs(value) < MAX_VALUE:
            return
        self.count += 1
        if self.best is None or value < self.best[1]:
            self.best = (step, value)
        self._append(Point(step // self.width, 1, step, value))
        if len(self.points) > MAX_POINTS:
            self.width *= 2
            points, self.points = self.points, []
            for point in points:
                self._append(point._replace(cell=point.cell // 2))

    def _append(self, point: Point) -> None:
        """Append a point, or merge it with the last one if they are in the same interval."""
        if not self.points or self.points[-1].cell != point.cell:
            self.points.append(point)
            return
        last = self.points[-1]
        count = last.n_values + point.n_values
        share = point.n_values / count
        step = last.step + (point.step - last.step) * share
        self.points[-1] = Point(point.cell, count, step, last.value + (point.value - last.value) * share)

    @property
    def smoothed_updates(self) -> float:
        """The number of updates over which `smoothed` averages."""
        return max(MIN_SMOOTHED_UPDATES, SMOOTHED_SHARE * self.count)

    def smoothed(self) -> list[float]:
        """Return an exponential moving average of the values at the points, corrected for its bias at the start."""
        decay = 1 - 1 / self.smoothed_updates
        total = 0.0
        weight = 0.0
        averages = []
        for point in self.points:
            factor = decay**point.n_values
            total = total * factor + point.value * (1 - factor)
            weight = weight * factor + 1 - factor
            averages.append(total / weight)
        return averages


class LossCurve:
    """The losses of a run as a picture."""

    def __init__(self) -> None:
        """Start without losses."""
        self.losses = Series()
        self.validation_losses = Series()

    def draw(self, file: IO[bytes], title: str) -> None:
        """Write the picture as a PNG.

        Args:
            file: The file to write to.
            title: The picture's title.
        """
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure

        figure = Figure(figsize=(8, 5), layout="constrained")
        FigureCanvasAgg(figure)
        axes = figure.subplots()
        steps = [point.step for point in self.losses.points]
        if steps:
            smoothed = self.losses.smoothed()
            axes.plot(steps, [point.value for point in self.losses.points], label=LOSS_LABEL, alpha=0.3)
            axes.plot(steps, smoothed, label=SMOOTHED_LABEL.format(self.losses.smoothed_updates))
        if self.validation_losses.points:
            points = self.validation_losses.points
            axes.plot([p.step for p in points], [p.value for p in points], label=VALIDATION_LABEL, marker="o")
            self._mark_best(axes, self.validation_losses.best)
        elif steps:
            self._mark_best(axes, min(zip(steps, smoothed), key=lambda point: point[1]))
        axes.set(xlabel="updates", ylabel="nats per token", title=title)
        axes.grid(alpha=0.3)
        if axes.lines:
            axes.legend()
        figure.savefig(file, format="png", dpi=100)

    @staticmethod
    def _mark_best(axes: Any, best: tuple[float, float] | None) -> None:
        if best:
            step, loss = best
            style: dict[str, Any] = {"marker": "*", "markersize": 14, "linestyle": "none", "color": "black"}
            axes.plot([step], [loss], label=BEST_LABEL.format(loss, step), zorder=3, **style)
