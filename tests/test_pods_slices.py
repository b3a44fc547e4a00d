"""tools/pods/: slices made, watched, taken away and made anew, by a gcloud that plays them."""

import os
import pathlib
import shlex
import signal
import subprocess

import pytest
from pod_scripts import PODS, lines, script

COMMON = {
    "NAME": "slice", "ZONE": "us-east5-a", "REPOSITORY": "https://host/clevit", "REVISION": "v1",
    "SERVICE_ACCOUNT": "runs@p.iam.gserviceaccount.com", "SLICE_PAUSE": "0",
}  # fmt: skip
TPU_VM = {"TYPE": "v5litepod-8", "VERSION": "v2-alpha-tpuv5-lite"}
GROUP = {"PROJECT": "p", "MACHINE": "ct6e-standard-4t", "TOPOLOGY": "2x4"}
COMMAND = ("python", "-m", "clevit_jax.main", "--workdir", "gs://bucket/a run")
# How the two say the same of a slice with two hosts.
QUEUED = {"tpu_vm": ["WAITING_FOR_RESOURCES", ""], "instance_group": ["", ""]}
READY = {"tpu_vm": ["ACTIVE", "READY"], "instance_group": ["RUNNING", "RUNNING"]}
TAKEN = {"tpu_vm": ["SUSPENDED", "PREEMPTED"], "instance_group": ["RUNNING", "STOPPING"]}
STOPPED = {"tpu_vm": ["ACTIVE", "TERMINATED"], "instance_group": ["TERMINATED", "TERMINATED"]}
REPAIRED = {"tpu_vm": ["ACTIVE", "REPAIRING"], "instance_group": ["RUNNING", "REPAIRING"]}


class Watch:
    """One of the two scripts, in a folder of its own, with the lives that a slice is to have."""

    def __init__(self, place, name, *lives, fails="", there=False, **settings):
        self.place, self.name = place, name
        self.lives(lives)
        (place / "fails").write_text(fails)
        if there:
            (place / "there").touch()
            (place / "now").write_text("0 -1")
        fake = pathlib.Path(__file__).with_name("fake_gcloud.sh")
        script(place / "bin" / "gcloud", fake.read_text())
        mine = TPU_VM if name == "tpu_vm" else GROUP
        self.environment = {
            **os.environ, "PATH": f"{place / 'bin'}:{os.environ['PATH']}", **COMMON, **mine,
            **settings,
        }  # fmt: skip

    def lives(self, lives):
        """Has the slice live so from the next time on that it is made."""
        (self.place / "now").write_text("-1 -1")
        (self.place / "lives").mkdir(exist_ok=True)
        for number, moments in enumerate(lives):
            text = "".join(
                f"{' '.join(state or '.' for state in states)} | {' '.join(codes)}\n"
                for states, *codes in moments
            )
            (self.place / "lives" / str(number)).write_text(text)

    def start(self, *command):
        return subprocess.Popen(
            ["bash", PODS / f"{self.name}.sh", *(command or COMMAND)], cwd=self.place,
            env=self.environment, text=True, stderr=subprocess.PIPE,
        )  # fmt: skip

    def ends(self):
        """Its code, and what it said."""
        process = self.start()
        _, said = process.communicate()
        return process.returncode, said

    def calls(self):
        """What was created and deleted, in order."""
        kind = "queued-resources" if self.name == "tpu_vm" else "managed"
        done = [line.split() for line in self.said.splitlines()]
        return [line[line.index(kind) + 1] for line in done if kind in line]

    @property
    def said(self):
        """All commands that change something, a line each."""
        return "".join(f"{' '.join(shlex.split(line))}\n" for line in lines(self.place / "calls"))


@pytest.fixture(params=["tpu_vm", "instance_group"])
def name(request):
    return request.param


def test_a_slice_that_is_taken_away_comes_back(tmp_path, name):
    watch = Watch(
        tmp_path, name,
        [[QUEUED[name]], [READY[name], "mute", "mute"], [READY[name], "-", "running"],
         [TAKEN[name], "-", "-"]],
        [[READY[name], "-", "-"], [STOPPED[name], "75", "75"]],
        [[QUEUED[name]], [READY[name], "-", "-"], [REPAIRED[name], "-", "-"],
         [READY[name], "0", "-"], [READY[name], "0", "0"]],
    )  # fmt: skip
    code, said = watch.ends()
    assert code == 0, said
    expected = ["create", "delete"] * 3
    calls = watch.calls()
    if name == "instance_group":  # which clears up before it makes, too
        assert calls[::3] == ["delete"] * 3
        calls = [call for index, call in enumerate(calls) if index % 3]
    assert calls == expected
    assert said.count("it is deleted and made anew") == 2
    assert "The run ended with 0; the slice is deleted." in said


@pytest.mark.parametrize(
    ("codes", "ends"), [(("-", "1"), 1), (("2", "-"), 2), (("2", "1"), 1), (("0", "2"), 2)]
)
def test_a_bug_or_a_mistake_ends_all(tmp_path, name, codes, ends):
    watch = Watch(tmp_path, name, [[READY[name], "-", "-"], [READY[name], *codes]])
    assert watch.ends()[0] == ends
    assert watch.calls()[-2:] == ["create", "delete"]


def test_a_host_that_gave_up_means_another_slice(tmp_path, name):
    lives = [[READY[name], "76", "-"], [READY[name], "-", "-"], [READY[name], "76", "-"]]
    watch = Watch(tmp_path, name, lives, [[READY[name], "0", "0"]])
    code, said = watch.ends()
    assert code == 0
    assert "The slice: running - -" in said  # for the first time did not count
    assert said.count("The run ended 76; it is deleted and made anew") == 1


def test_slices_lost_early_in_a_row(tmp_path, name):
    lives = [[[READY[name], "-", "-"], [TAKEN[name]]]] * 3
    watch = Watch(tmp_path, name, *lives, SLICE_LIMIT="3")
    code, said = watch.ends()
    assert code == 75
    assert watch.calls().count("create") == 3
    assert "3 slices in a row were lost early" in said
    watch.environment |= {"SLICE_EARLY": "0"}  # none is early
    watch.lives([*lives, [[READY[name], "0", "0"]]])
    assert watch.ends()[0] == 0


def test_the_slice_that_is_there_is_watched(tmp_path, name):
    watch = Watch(tmp_path, name, [[READY[name], "-", "-"], [READY[name], "0", "0"]], there=True)
    assert watch.ends()[0] == 0
    assert watch.calls() == ["delete"]


def test_a_slice_that_cannot_be_made(tmp_path, name):
    code, said = Watch(tmp_path, name, [[QUEUED[name]]], fails="create").ends()
    assert code == 2
    assert "error: The slice cannot be made" in said


def test_no_answer_is_not_no_slice(tmp_path, name):
    watch = Watch(tmp_path, name, [[READY[name], "0", "0"]], fails="list", there=True)
    process = watch.start()
    for line in process.stderr:
        if "waiting for gcloud" in line:
            break
    assert watch.calls() == []
    (tmp_path / "fails").write_text("")
    process.communicate()
    assert process.returncode == 0
    assert watch.calls() == ["delete"]


def test_who_stops_watching_leaves_the_slice(tmp_path, name):
    watch = Watch(tmp_path, name, [[READY[name], "-", "-"]])
    process = watch.start()
    for line in process.stderr:
        if "running" in line:
            break
    process.send_signal(signal.SIGTERM)
    _, said = process.communicate()
    assert process.returncode == 130
    assert "the same command watches it again" in said
    assert watch.calls()[-1] == "create"
    assert (tmp_path / "there").exists()


def test_what_is_asked_for(tmp_path, name):
    watch = Watch(tmp_path, name, [[READY[name], "0", "0"]])
    assert watch.ends()[0] == 0
    assert shlex.split((tmp_path / "command").read_text()) == list(COMMAND)
    calls = watch.said
    keys = "enable-guest-attributes=TRUE,clevit-repository=https://host/clevit,clevit-revision=v1"
    assert f"--metadata={keys} " in calls
    assert f"startup-script={PODS}/startup.sh," in calls
    assert f"--service-account={COMMON['SERVICE_ACCOUNT']}" in calls
    if name == "tpu_vm":
        assert "--accelerator-type=v5litepod-8 --runtime-version=v2-alpha-tpuv5-lite" in calls
        assert calls.count("--spot") == 1
    else:
        assert "workload-policy slice --region=us-east5 --type=HIGH_THROUGHPUT" in calls
        assert "--accelerator-topology=2x4" in calls
        assert "--size=2 " in calls
        policy = "--workload-policy=projects/p/regions/us-east5/resourcePolicies/slice"
        assert f"{policy} --target-size-policy-mode=bulk" in calls
        assert "--provisioning-model=SPOT" in calls
        last = calls.splitlines()[-3:]
        assert ["instance-groups" in last[0], "instance-templates" in last[1]] == [True, True]
        assert "resource-policies delete slice" in last[2]


def test_on_demand(tmp_path, name):
    settings = {"SPOT": "no"} if name == "tpu_vm" else {"MODEL": "STANDARD"}
    flags = {
        "CREATE_FLAGS": "--network=n --labels=a=b",
        "TEMPLATE_FLAGS": "--network=n --labels=a=b",
    }
    # What Google itself repairs is waited for.
    stopped = [STOPPED[name]] if name == "instance_group" else [REPAIRED[name]]
    lives = [[stopped[0], "-", "-"], [READY[name], "0", "0"]]
    watch = Watch(tmp_path, name, lives, **settings, **flags)
    assert watch.ends()[0] == 0
    calls = watch.said
    assert "spot" not in calls.lower()
    assert "--instance-termination-action" not in calls
    assert "--network=n --labels=a=b" in calls
    assert watch.calls().count("create") == 1


def test_one_host_needs_no_policy(tmp_path):
    watch = Watch(tmp_path, "instance_group", [[["RUNNING"], "0"]], TOPOLOGY="2x2")
    assert watch.ends()[0] == 0
    assert "policy" not in watch.said.replace("maintenance-policy", "")


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"ZONE": ""}, "ZONE is not set"),
        ({"TOPOLOGY": "1x1"}, "TOPOLOGY 1x1 has fewer chips than a host of ct6e-standard-4t"),
        ({"TOPOLOGY": "big"}, "they must be like ct6e-standard-4t and 4x4"),
        ({"MACHINE": "ct6e-standard"}, "they must be like ct6e-standard-4t and 4x4"),
    ],
)
def test_mistyped(tmp_path, settings, says):
    code, said = Watch(tmp_path, "instance_group", **settings).ends()
    assert code == 2
    assert says in said
    assert not (tmp_path / "calls").exists()


def test_a_group_that_lost_a_host(tmp_path):
    lives = [[["RUNNING", "RUNNING"], "-", "-"], [["RUNNING"], "-"]]
    watch = Watch(tmp_path, "instance_group", lives, [[["RUNNING", "RUNNING"], "0", "0"]])
    code, said = watch.ends()
    assert code == 0
    assert "The slice is short of a host; it is deleted and made anew" in said


def test_ssh_that_fails_is_said(tmp_path):
    lives = [[READY["tpu_vm"], "0", "mute"], [READY["tpu_vm"], "0", "0"]]
    code, said = Watch(tmp_path, "tpu_vm", lives).ends()
    assert code == 0
    assert "not known, for ssh fails: ERROR: ssh: Connection refused" in said
