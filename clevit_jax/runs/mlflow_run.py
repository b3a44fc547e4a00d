"""A run of MLflow: the room that imports it, when `log.mlflow` names an experiment.

Its own variables say the rest: MLFLOW_TRACKING_URI, MLFLOW_TRACKING_TOKEN and others.
"""

import logging
import os
import pathlib
import re
import time
from collections.abc import Mapping, Sequence
from typing import Any

from ml_collections import ConfigDict

from clevit_jax.recipes import flatten

Record = tuple[int, Mapping[str, float]]  # step, and scalars by name
_MOST = 100  # parameters, tags or numbers of one request; what every server takes
_LONGEST = 500  # characters of a parameter; what every server takes


class MlflowRun:
    """A run there, which goes on where it is known; see `trackers.Service`.

    Args:
        workdir: of our run; its name is that of the run there.
        experiment: that the run belongs to; made where it is not there.
        settings: of the run, nested. Its parameters there are what it began with, which MLflow
            does not change; what differs by now is a tag, `NAME from step N`.
        key: what `self.key` was at an earlier start; "" begins a new run.
        step: update that the run continues from.

    Raises:
        Exception: whatever MLflow raises: no server, no right to write, a store it cannot use.
    """

    def __init__(
        self,
        workdir: pathlib.Path,
        experiment: str,
        settings: dict[str, Any],
        key: str,
        step: int,
    ):
        # Its own reports of use go nowhere, unless asked for.
        os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
        from mlflow.tracking import MlflowClient

        for name in ("mlflow", "alembic"):  # which tell of tables that they make
            logging.getLogger(name).setLevel(logging.WARNING)
        self._client: Any = MlflowClient()
        run = self._known(key)
        if run is None:
            run = self._client.create_run(self._experiment(experiment), run_name=workdir.name)
        else:
            self._client.update_run(run.info.run_id, status="RUNNING")
        self.key = run.info.run_id
        self._write_settings(settings, run.data.params, step)
        self.where = (
            f"MLflow keeps the run as {workdir.name} of the experiment {experiment} in "
            f"{_without_password(self._client.tracking_uri)}."
        )

    def _known(self, key: str) -> Any:
        """The run of an earlier start; None where there is none, or it was deleted."""
        from mlflow.exceptions import MlflowException

        if not key:
            return None
        try:
            run = self._client.get_run(key)
        except MlflowException as error:
            if error.error_code == "RESOURCE_DOES_NOT_EXIST":
                return None
            raise
        return run if run.info.lifecycle_stage == "active" else None

    def _experiment(self, name: str) -> str:
        """The number of an experiment, which another run may make at the same moment."""
        from mlflow.exceptions import MlflowException

        there = self._client.get_experiment_by_name(name)
        if there is None:
            try:
                return str(self._client.create_experiment(name))
            except MlflowException as error:
                there = self._client.get_experiment_by_name(name)
                if there is None:
                    raise error
        return str(there.experiment_id)

    def _write_settings(
        self, settings: dict[str, Any], there: Mapping[str, str], step: int
    ) -> None:
        from mlflow.entities import Param, RunTag

        flat = {
            name: str(value)[:_LONGEST] for name, value in flatten(ConfigDict(settings)).items()
        }
        new = [Param(name, value) for name, value in flat.items() if name not in there]
        changed = [
            RunTag(f"{name} from step {step}", value)
            for name, value in flat.items()
            if name in there and there[name] != value
        ]
        for begin in range(0, max(len(new), len(changed)), _MOST):
            part = slice(begin, begin + _MOST)
            self._client.log_batch(self.key, params=new[part], tags=changed[part])

    def write(self, records: Sequence[Record]) -> None:
        """Hands over records, in order."""
        from mlflow.entities import Metric

        now = int(1000 * time.time())
        metrics = [
            Metric(_plain(name), float(value), now, step)
            for step, scalars in records
            for name, value in scalars.items()
        ]
        for begin in range(0, len(metrics), _MOST):
            self._client.log_batch(self.key, metrics=metrics[begin : begin + _MOST])

    def finish(self, *, finished: bool) -> None:
        """Ends the run there until it goes on: FINISHED, or else KILLED."""
        self._client.set_terminated(self.key, "FINISHED" if finished else "KILLED")


def mend(error: Exception) -> str:
    """What to type against an error of `MlflowRun`."""
    return "MLFLOW_TRACKING_URI says where it writes, such as sqlite:///mlflow.db."


def _plain(name: str) -> str:
    """A name of a number with the letters that MLflow takes; levels of classes have any name."""
    return re.sub(r"[^\w.\-:/ ]", "_", name)


def _without_password(address: str) -> str:
    return re.sub(r"//[^/@]*@", "//", address)
