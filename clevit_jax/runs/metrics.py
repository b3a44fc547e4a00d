"""Writers of a run's numbers: metrics.jsonl, TensorBoard and the progress bar."""

import collections
import contextlib
import json
import math
import pathlib
import time
from collections.abc import Callable, Mapping
from typing import Any

from clevit_jax.runs import events
from clevit_jax.system.append import appended
from clevit_jax.system.files import write_text
from clevit_jax.system.progress import in_notebook, progress_bar, watched


class MetricWriter:
    """Appends scalars to `folder/metrics.jsonl` and to TensorBoard under `folder/tensorboard`.

    A disk that is full, or away, costs no update: the numbers wait until they can be written. In a
    bucket both are up to 15 seconds late.

    Args:
        folder: of the run; exists.
        step: the run continues from here; records of later steps, which a killed run left, are
            dropped from both, since they will be written again.
        ours: whether the run is still this process's; see `system.append.appended`.
    """

    def __init__(self, folder: pathlib.Path, *, step: int, ours: Callable[[], bool] = lambda: True):
        path = folder / "metrics.jsonl"
        _keep_until(path, step)
        self._lines = appended(path, "metrics", ours=ours)
        board = events.event_file(folder / "tensorboard")
        self._board = appended(board, "numbers for TensorBoard", ours=ours)
        self._board.write(events.first_records(purge_step=step + 1 if step else None))

    def write(self, step: int, scalars: Mapping[str, float]) -> None:
        """One line `{"step": step, name: value, ...}`; what is not finite becomes null."""
        line = {name: value if math.isfinite(value) else None for name, value in scalars.items()}
        self._lines.write([_line({"step": step, **line}).encode()])
        self._board.write([events.scalars_record(step, scalars)])

    def flush(self) -> None:
        """Returns when what was written is there, as far as it can be; a checkpoint follows."""
        self._lines.flush()
        self._board.flush()

    def close(self) -> None:
        """Writes what still waits, or says that it is lost; may be called twice."""
        self._lines.close()
        self._board.close()


def _keep_until(path: pathlib.Path, step: int) -> None:
    """Drops records of later steps and torn lines; a file that is right needs no room."""
    kept = "".join(_line(record) for record in read_records(path) if record["step"] <= step)
    if path.exists() and path.read_bytes() != kept.encode():
        write_text(path, kept)


def _line(record: Mapping[str, Any]) -> str:
    return json.dumps(record) + "\n"


def read_records(path: pathlib.Path) -> list[dict[str, Any]]:
    """The lines of metrics.jsonl, in order; none where there is no file.

    Lines that are not records are left out: a run that was killed may leave half a line.

    Raises:
        OSError: the file is there and cannot be read.
    """
    try:
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    except FileNotFoundError:
        return []
    records = []
    for line in lines:
        with contextlib.suppress(ValueError, RecursionError):  # half a line
            record = json.loads(line)
            if isinstance(record, dict) and isinstance(record.get("step"), int):
                records.append(record)
    return records


class Progress:
    """The bar of a training run, and means over the updates since the last record.

    Args:
        start: update that the run continues from.
        total: updates of the whole run.
        batch_size: images of an update.
        shown: whether there is a bar at all.
    """

    def __init__(self, start: int, total: int, batch_size: int, *, shown: bool = True):
        bar = "{bar}" if in_notebook() else "{bar:18}"  # of tqdm's widgets, none has a width
        options = {"dynamic_ncols": True, "mininterval": 0.2} if watched() else {"ncols": 120}
        self._bar = progress_bar(
            total=total,
            initial=start,
            unit="step",
            disable=not shown,
            bar_format="{desc}{percentage:3.0f}%|" + bar + "| {n_fmt}/{total_fmt} "
            "[{elapsed}<{remaining}{postfix}]",
            **options,
        )
        self._batch_size = batch_size
        self._recent = collections.deque[tuple[float, float]](maxlen=50)  # seconds: whole, waiting
        self._sums = collections.defaultdict[str, float](float)
        self._updates = 0
        self._mark: float | None = None  # the first update compiles, so it is left out of the speed

    def update(self, metrics: Mapping[str, float], *, waited: float) -> None:
        """Counts one update, with its metrics and the seconds it waited for data."""
        now = time.perf_counter()
        if self._mark is not None:
            self._recent.append((now - self._mark, waited))
        self._mark = now
        self._updates += 1
        for name, value in metrics.items():
            self._sums[name] += value
        self._bar.set_postfix_str(
            f"loss {metrics['loss']:.3f}, acc {100 * self.mean('accuracy'):.0f} %, "
            f"{self.images_per_second:.1f} img/s, data {100 * self.data_share:.0f} %",
            refresh=False,
        )
        self._bar.update()

    def pause(self) -> None:
        """Leaves what lies between two updates (evaluating, saving) out of the speed."""
        if self._mark is not None:
            self._mark = time.perf_counter()

    def mean(self, name: str) -> float:
        """Mean of a metric over the updates since the last `record`."""
        return self._sums[name] / max(1, self._updates)

    @property
    def images_per_second(self) -> float:
        """Speed over the last 50 updates."""
        seconds = sum(whole for whole, _ in self._recent)
        return self._batch_size * len(self._recent) / seconds if seconds else 0.0

    @property
    def data_share(self) -> float:
        """Share of the time of the last 50 updates that was spent waiting for data."""
        seconds = sum(whole for whole, _ in self._recent)
        return sum(wait for _, wait in self._recent) / seconds if seconds else 0.0

    def record(self) -> dict[str, float]:
        """Means since the last record, with speed and waiting; starts new means."""
        means = {f"train/{name}": self.mean(name) for name in self._sums}
        means |= {
            "train/images_per_second": self.images_per_second,
            "train/data_wait": self.data_share,
        }
        self._sums.clear()
        self._updates = 0
        return means

    def say(self, text: str) -> None:
        """Prints a line above the bar."""
        if not watched():
            print(text, flush=True)
            return
        self._bar.clear()
        print(text, flush=True)
        self._bar.refresh()

    def close(self) -> None:
        """Leaves the bar as it stands."""
        self._bar.close()
