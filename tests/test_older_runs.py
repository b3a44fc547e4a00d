"""A run that an older version began goes on, and ends as that version would have ended it."""

import json
import shutil

import numpy as np
import pytest

from clevit_jax.runs.load import read_weights
from clevit_jax.runs.workdir import load_config
from clevit_jax.train import train_workdir
from clevit_jax.weights.convert import named_leaves

# Of updates 3 to 12, of the run that was not stopped.
LOSSES = [2.534161, 2.411167, 2.104376, 1.962305, 2.203944, 1.499486, 1.833530, 1.416667, 1.874132,
          1.455606]  # fmt: skip


@pytest.mark.parametrize("version", ["4695eba"])
def test_an_older_run_goes_on(golden, tmp_path, version, capsys):
    source, workdir = golden / f"run_{version}", tmp_path / "run"
    shutil.copytree(source / "run", workdir)
    config = load_config(workdir)
    with config.unlocked():
        config.data.root = str(source / "data")
    assert train_workdir(config, workdir) == 0
    assert "Going on from step 3 of 12." in capsys.readouterr().out
    end = np.load(source / "end.npz")
    params = dict(named_leaves(read_weights(workdir).params))
    assert params.keys() == set(end)
    # The same bits on one device of the machine that wrote them. Elsewhere sums round otherwise,
    # and Adam divides by what may be near zero: an element moves by a percent of an update.
    for name, value in params.items():
        np.testing.assert_allclose(value, end[name], rtol=1e-3, atol=1e-4, err_msg=name)
    lines = map(json.loads, (workdir / "metrics.jsonl").read_text().splitlines())
    losses = [line["train/loss"] for line in lines if "train/loss" in line]
    assert len(losses) == 12
    np.testing.assert_allclose(losses[2:], LOSSES, rtol=1e-3)
