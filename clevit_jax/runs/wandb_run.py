"""A run of Weights & Biases (wandb): the room that imports it, when `log.wandb` names a project.

Its own variables say the rest: WANDB_MODE, WANDB_ENTITY, WANDB_DIR, WANDB_NAME, WANDB_RUN_GROUP ...
"""

import os
import pathlib
import secrets
import sys
from collections.abc import Mapping, Sequence
from typing import Any

Record = tuple[int, Mapping[str, float]]  # step, and scalars by name
STEP = "step"  # the x of each chart
UPLOAD_SECONDS = 20.0  # that the end of a run may wait for what is still on its way


class WandbRun:
    """A run there, which goes on where it is known; see `trackers.Service`.

    wandb counts rows by itself and refuses to go back, so each row carries its own step.

    Args:
        workdir: of our run; its name is that of the run there, and it holds the files.
        project: that the run belongs to.
        settings: of the run, nested.
        key: what `self.key` was at an earlier start; "" begins a new run.

    Raises:
        Exception: whatever wandb raises: no login, no network, a project that cannot be written.
    """

    def __init__(self, workdir: pathlib.Path, project: str, settings: dict[str, Any], key: str):
        # Its own reports of errors and use go nowhere, unless asked for.
        os.environ.setdefault("WANDB_ERROR_REPORTING", "false")
        ours = "wandb" not in sys.modules  # not so in a notebook that uses it, too
        import wandb

        self.key = key or secrets.token_hex(4)
        inside = str(workdir) if os.path.isdir(str(workdir)) else None  # not where it has no disk
        quiet = wandb.Settings(
            console="off",  # stdout is ours: `system.output`
            silent=True,
            save_code=False,
            disable_git=True,  # it would send what is not committed
            finish_timeout=UPLOAD_SECONDS,
            login_timeout=0,  # asks nobody
            reinit="create_new",  # a run that a notebook has open is left alone
        )
        # Before it looks for a login, of which it would tell.
        known = wandb.setup(settings=quiet if ours else None).settings
        mode: Any = os.environ.get("WANDB_MODE") or known.mode  # also what was set since
        if mode in ("online", "run", "shared") and not wandb.login(prompt=False, verify=False):
            raise PermissionError("nobody is logged in")
        self._run: Any = wandb.init(
            project=project,
            id=self.key,
            name=None if os.environ.get("WANDB_NAME") else workdir.name,
            dir=None if os.environ.get("WANDB_DIR") else inside,
            mode=mode,
            resume="allow",
            config=settings,
            allow_val_change=True,
            settings=quiet,
        )
        self._run.define_metric("*", step_metric=STEP)
        self.where = self._where()

    def _where(self) -> str:
        """Where the run is found, as a sentence."""
        if self._run.disabled:
            return "Weights & Biases is turned off by WANDB_MODE."
        if self._run.offline:
            folder = pathlib.Path(self._run.dir).parent
            return f"Weights & Biases keeps the run in {folder}; wandb sync {folder} sends it."
        return f"Weights & Biases shows the run at {self._run.url}."

    def write(self, records: Sequence[Record]) -> None:
        """Hands over records, in order."""
        for step, scalars in records:
            self._run.log({STEP: step, **scalars})

    def finish(self, *, finished: bool) -> None:
        """Ends the run there until it goes on: `finished`, or else failed."""
        self._run.finish(exit_code=0 if finished else 1)


def mend(error: Exception) -> str:
    """What to type against an error of `WandbRun`."""
    if isinstance(error, PermissionError):
        return "Type wandb login, or set WANDB_MODE=offline and send the run later by wandb sync."
    return "WANDB_MODE=offline does without a server, and wandb sync sends the run later."
