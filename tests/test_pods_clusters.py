"""tools/pods/: what becomes of a run under GKE's JobSet and under Slurm, by how it ended."""

import os
import re
import subprocess

import pytest
import yaml
from pod_scripts import AGAIN, PODS, STAND_IN, lines, script

from clevit_jax import flags
from clevit_jax.config import flatten
from configs import base


def jobset():
    return yaml.safe_load((PODS / "jobset.yaml").read_text())


def outcome(code=None, condition=None):
    """What Kubernetes and JobSet make of a pod's end: `Complete`, or the action of a rule."""
    spec = jobset()["spec"]
    job = spec["replicatedJobs"][0]["template"]["spec"]
    if code == 0:
        return "Complete"
    reason, message = "BackoffLimitExceeded", "Job has reached the specified backoff limit"
    for index, rule in enumerate(job["podFailurePolicy"]["rules"]):
        codes = rule.get("onExitCodes", {"values": []})["values"]
        conditions = [entry["type"] for entry in rule.get("onPodConditions", [])]
        if code not in codes and condition not in conditions:
            continue
        what = f"failed with exit code {code}" if code in codes else f"has condition {condition}"
        reason, message = "PodFailurePolicy", f"Pod p {what} matching FailJob rule at index {index}"
        break
    for rule in spec["failurePolicy"]["rules"]:
        patterns = rule.get("onJobFailureMessagePatterns", [""])
        if reason in rule["onJobFailureReasons"] and any(re.search(p, message) for p in patterns):
            return rule["action"]
    return "RestartJobSet"


@pytest.mark.parametrize(
    ("end", "action"),
    [
        ({"code": 0}, "Complete"),
        ({"code": 1}, "FailJobSet"),
        ({"code": 2}, "FailJobSet"),
        ({"code": 75}, "RestartJobSetAndIgnoreMaxRestarts"),
        ({"code": 137, "condition": "DisruptionTarget"}, "RestartJobSetAndIgnoreMaxRestarts"),
        ({"code": 1, "condition": "DisruptionTarget"}, "FailJobSet"),
        *(({"code": code}, "RestartJobSet") for code in AGAIN if code != 75),
    ],
)
def test_jobset(end, action):
    assert outcome(**end) == action


def test_jobset_is_one_slice():
    job = jobset()["spec"]["replicatedJobs"][0]["template"]["spec"]
    pod = job["template"]["spec"]
    (container,) = pod["containers"]
    rows, columns = map(int, pod["nodeSelector"]["cloud.google.com/gke-tpu-topology"].split("x"))
    chips = container["resources"]["limits"]["google.com/tpu"] * job["parallelism"]
    assert chips == rows * columns
    assert job["completions"] == job["parallelism"]
    assert (job["backoffLimit"], pod["restartPolicy"]) == (0, "Never")  # as podFailurePolicy wants
    assert job["podFailurePolicy"]["rules"][0]["onExitCodes"]["containerName"] == container["name"]


@pytest.mark.parametrize("name", ["jobset.yaml", "slurm.sh"])
def test_flags_of_the_commands(name):
    text = (PODS / name).read_text().partition("clevit_jax.main")[2].replace("$", "")
    ours = {"config", *(flag.name for flag in flags.FLAGS)}
    command = text.partition("code=")[0]
    given = re.findall(r"--([\w.]+)", command.partition("resources")[0])
    assert len(given) > 3
    settings = flatten(base.get_config())
    for flag in given:
        setting = flag.removeprefix("config.")
        assert setting in settings if setting != flag else flag in ours


@pytest.mark.parametrize(
    ("codes", "requeued"),
    [([0], 0), ([1], 0), ([2], 0), *(([code, 0], 1) for code in AGAIN), ([76] * 9, 4)],
)
def test_slurm(tmp_path, codes, requeued):
    (tmp_path / "codes").write_text("\n".join(map(str, codes)) + "\n")
    script(tmp_path / "bin" / "srun", STAND_IN)
    script(tmp_path / "bin" / "scontrol", '#!/bin/sh\necho "$*" >> requeues\n')
    asked = tmp_path / "requeues"
    environment = {
        **os.environ, "PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}", "SLURM_JOB_ID": "7",
    }  # fmt: skip
    starts = 0
    while len(lines(asked)) == starts:  # as Slurm starts a job anew that was requeued
        starts += 1
        done = subprocess.run(
            ["bash", PODS / "slurm.sh"], cwd=tmp_path, env=environment, capture_output=True,
            text=True, check=False,
        )  # fmt: skip
    assert lines(asked) == ["requeue 7"] * requeued
    assert done.returncode == codes[requeued]
    assert ("Five ends in a row" in done.stderr) == (requeued == 4)
    assert not (tmp_path / "early-7").exists()
