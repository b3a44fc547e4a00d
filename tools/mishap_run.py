"""A small run that tools/try_mishaps.py starts, and looks at from outside."""

import contextlib
import json
import os
import pathlib
import signal
import subprocess
import sys
import time
from typing import Any

ROOT = pathlib.Path(__file__).resolve().parents[1]
# The demo, as small as a network of two stages can be: updates in seconds, a checkpoint after every
# 25th, an evaluation after every 60th.
TINY: dict[str, Any] = {
    "data.leaves.classes": 3, "data.leaves.train_per_class": 8, "data.leaves.test_per_class": 4,
    "data.leaves.size": 48, "data.resize": 40, "image_size": 32, "eval.resize": 36,
    "eval.batch_size": 1, "eval.every_epochs": 10, "epochs": 60, "batch_size": 4,
    "model.embed_dim": 8, "model.depths": "(1,1)", "model.num_heads": "(1,2)", "optim.ema": 0.9,
    "optim.warmup_epochs": 1, "checkpoint.every_steps": 25, "log.every_steps": 1,
}  # fmt: skip
TOTAL, SCORED = 360, 60  # updates of the run, and between evaluations
VARIABLES = {"JAX_PLATFORMS": "cpu", "XLA_FLAGS": "--xla_backend_optimization_level=0"}
# What a run does, in this order.
PHASES = ("import", "reading", "compiling", "updates", "evaluation", "saving", "scores", "report")
STOPPED = 75  # exit code
LIMIT = 300  # seconds after which a run hangs, rather than being slow


class Process:
    """One start of the command.

    Args:
        workdir: of the run; what it prints goes to a file beside it.
        settings: of the config, besides the data.
    """

    def __init__(self, workdir: pathlib.Path, settings: dict[str, Any], place: pathlib.Path):
        self.workdir = workdir
        self._log = place / f"{workdir.name}-{time.monotonic_ns()}.txt"
        command = [
            sys.executable, "-m", "clevit_jax.main", "--config=demo", f"--workdir={workdir}",
            f"--compilation_cache={place / 'compiled'}", f"--config.data.root={place / 'leaves'}",
            *(f"--config.{name}={value}" for name, value in settings.items()),
        ]  # fmt: skip
        path = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))
        with self._log.open("wb") as file:
            self._process = subprocess.Popen(
                command, stdout=file, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL,
                cwd=place, env={**os.environ, **VARIABLES, "PYTHONPATH": path},
                start_new_session=True,
            )  # fmt: skip

    def text(self) -> str:
        """What it printed."""
        return self._log.read_text(errors="replace")

    def code(self) -> int | None:
        """The exit code, when it has ended."""
        return self._process.poll()

    def send(self, number: int) -> None:
        self._process.send_signal(number)

    def end(self, seconds: float = LIMIT) -> int | None:
        """Waits for the exit code; None when it hangs, after which it is killed."""
        try:
            return self._process.wait(seconds)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
            return None

    def hears(self) -> bool:
        """Whether it takes SIGTERM; before that and at the very end it is Python that runs."""
        with contextlib.suppress(OSError):
            for line in pathlib.Path(f"/proc/{self._process.pid}/status").read_text().splitlines():
                if line.startswith("SigCgt:"):
                    return bool(int(line.split()[1], 16) >> (signal.SIGTERM - 1) & 1)
        return True

    def phase(self) -> str:
        """What it is doing, told from outside."""
        text = self.text()
        if "Data: " not in text:
            return "import"
        if (self.workdir / "evaluation.json").exists():
            return "report"
        if is_saving(self.workdir):
            return "saving"
        step = last_step(self.workdir)
        if step >= TOTAL and f"step {TOTAL}:" in text:
            return "scores"
        if "Swin with" not in text:
            return "reading"
        if step % SCORED == 0 and step and f"step {step}:" not in text:
            return "evaluation"
        going_on = text.partition("Going on from step ")[2].partition(" ")[0]
        return "updates" if step > int(going_on or 0) else "compiling"


def is_saving(workdir: pathlib.Path) -> bool:
    """Whether there is a checkpoint that is not whole yet."""
    try:
        return any(not name.isdigit() for name in os.listdir(workdir / "checkpoints"))
    except OSError:
        return False


def last_step(workdir: pathlib.Path) -> int:
    """Of metrics.jsonl; 0 when there is none."""
    with contextlib.suppress(OSError, ValueError, IndexError, KeyError):
        with (workdir / "metrics.jsonl").open("rb") as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - 4096))
            whole = file.read().rpartition(b"\n")[0]
        return int(json.loads(whole.splitlines()[-1])["step"])
    return 0
