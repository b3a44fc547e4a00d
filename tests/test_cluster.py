"""Which group a process belongs to, by the command line and by what environments say."""

import pathlib
import re
import types

import pytest
from jax._src import clusters

from clevit_jax.distributed import cluster, processes
from clevit_jax.distributed.cluster import Group, find_group
from clevit_jax.errors import ConfigError, ProcessError
from clevit_jax.runs import workdir as rundir
from clevit_jax.runs.workdir import claim_workdir
from configs import base

SLURM = {
    "SLURM_JOB_ID": "77", "SLURM_STEP_NODELIST": "node[3-6]", "SLURM_NTASKS": "4",
    "SLURM_PROCID": "2", "SLURM_LOCALID": "0", "SLURM_STEP_NUM_NODES": "4",
    "SLURM_STEP_TASKS_PER_NODE": "1(x4)",
}  # fmt: skip
OPEN_MPI = {
    "OMPI_MCA_orte_hnp_uri": "1531576320.0;tcp://10.96.0.1:34911", "OMPI_COMM_WORLD_SIZE": "8",
    "OMPI_COMM_WORLD_RANK": "5", "OMPI_COMM_WORLD_LOCAL_RANK": "1",
    "OMPI_COMM_WORLD_LOCAL_SIZE": "4",
}  # fmt: skip


@pytest.fixture
def environment(monkeypatch):
    """Sets the environment that JAX's detection reads, too."""

    def set_to(**variables):
        for name, value in variables.items():
            monkeypatch.setenv(name, value)

    return set_to


def test_the_command_line(environment):
    environment(**SLURM)
    group = find_group("host:1234", 4, 3)
    assert group == Group("host:1234", 4, 3, "the command line")
    assert find_group(None, 1, None) is None  # whatever the environment says
    assert find_group("host:1234", 1, 0) is None


@pytest.mark.parametrize(
    ("given", "says"),
    [
        (("host:1", None, None), "--processes and --process must be given too"),
        ((None, 2, None), "--coordinator and --process must be given too"),
        (("host:1", 2, None), "--process must be given too"),
        (("host", 2, 0), "'host'; it must be HOST:PORT"),
        ((":12", 2, 0), "':12'; it must be HOST:PORT"),
        (("host:1", 2, 2), "--process is 2; it must be in 0 to 1"),
    ],
)
def test_a_command_line_that_says_too_little(given, says):
    with pytest.raises(ProcessError, match=says):
        find_group(*given)


def test_alone():
    assert find_group(None, None, None) is None


def test_slurm(environment):
    environment(**SLURM)
    group = find_group(None, None, None)
    # One task a node has all of its devices; JAX by itself would take the first of them.
    assert group == Group(None, 4, 2, "slurm", [])
    environment(SLURM_STEP_TASKS_PER_NODE="8(x4)", SLURM_NTASKS="32")
    assert find_group(None, None, None) == Group(None, 32, 2, "slurm", None)
    environment(SLURM_NTASKS="1", SLURM_PROCID="0")
    assert find_group(None, None, None) is None


def test_open_mpi(environment):
    environment(**OPEN_MPI)
    assert find_group(None, None, None) == Group(None, 8, 5, "ompi", None)
    environment(OMPI_COMM_WORLD_LOCAL_SIZE="1")
    assert find_group(None, None, None) == Group(None, 8, 5, "ompi", [])


def test_a_tpu_pod(environment, monkeypatch):
    """As GKE tells it; JAX looks at it on a machine with TPUs alone."""
    environment(TPU_WORKER_HOSTNAMES="a,b,c,d", TPU_WORKER_ID="1", TPU_SKIP_MDS_QUERY="1")
    environment(MEGASCALE_NUM_SLICES="1", MEGASCALE_SLICE_ID="0")
    assert find_group(None, None, None) is None
    monkeypatch.setattr(clusters.cloud_tpu_cluster, "running_in_cloud_tpu_vm", True)
    assert find_group(None, None, None) == Group(None, 4, 1, "gketpu", None)


@pytest.mark.parametrize("kubernetes", [True, False])
def test_several_slices(environment, monkeypatch, kubernetes):
    """As a JobSet on GKE tells its pods; all slices are one group, numbered slice by slice.

    Each pod is one of an indexed Job as well, which is a slice alone.
    """
    environment(
        TPU_WORKER_HOSTNAMES="a,b,c,d", TPU_WORKER_ID="1", TPU_SKIP_MDS_QUERY="1",
        MEGASCALE_NUM_SLICES="3", MEGASCALE_SLICE_ID="2", MEGASCALE_PORT="8080",
        MEGASCALE_COORDINATOR_ADDRESS="clevit-pod-0-0.clevit:8080",
        KUBERNETES_SERVICE_HOST="10.0.0.1", JOB_COMPLETION_INDEX="1",
    )  # fmt: skip
    monkeypatch.setattr(clusters.cloud_tpu_cluster, "running_in_cloud_tpu_vm", True)
    monkeypatch.setattr(cluster.importlib.util, "find_spec", lambda _: kubernetes or None)
    assert find_group(None, None, None) == Group(None, 12, 9, "gketpu", None)
    # Process 0 of all is where they meet: slice 0 has it, whichever slice asks.
    monkeypatch.setattr(clusters.GkeTpuCluster, "wait_for_coordinator", lambda *_: None)
    meet = clusters.GkeTpuCluster.get_coordinator_address(1, None)
    assert meet == "clevit-pod-0-0.clevit:8482"


def test_several_slices_of_tpu_vms(environment, monkeypatch):
    """As queued resources tell them, by the metadata server alone."""
    tpu = clusters.cloud_tpu_cluster
    told = {
        "agent-worker-number": "1",
        "worker-network-endpoints": "x:0:10.0.0.5,x:1:10.0.0.6",
        "tpu-env": "NAME: 'pod'\nMEGASCALE_NUM_SLICES: '2'\nMEGASCALE_SLICE_ID: '1'\n"
        "MEGASCALE_COORDINATOR_ADDRESS: '10.0.0.3'\n",
    }
    monkeypatch.setattr(tpu, "running_in_cloud_tpu_vm", True)
    monkeypatch.setattr(tpu, "get_metadata", lambda key: (told[key], 200))
    monkeypatch.delenv("TPU_SKIP_MDS_QUERY", raising=False)
    for name in ("TPU_WORKER_HOSTNAMES", "TPU_PROCESS_ADDRESSES"):
        monkeypatch.delenv(name, raising=False)
    assert find_group(None, None, None) == Group(None, 4, 3, "gcetpu", None)


def test_kubernetes(environment):
    """A pod that is no part of an indexed Job, such as a notebook's, is left alone."""
    environment(KUBERNETES_SERVICE_HOST="10.0.0.1")
    assert find_group(None, None, None) is None
    environment(JOB_COMPLETION_INDEX="3")
    with pytest.raises(ProcessError, match=r"pip install kubernetes.* --processes 1"):
        find_group(None, None, None)
    assert find_group(None, 1, None) is None


def test_an_environment_that_does_not_tell(environment, monkeypatch):
    environment(**SLURM)
    monkeypatch.delenv("SLURM_NTASKS")
    assert find_group(None, None, None) is None  # not all that JAX looks for
    environment(SLURM_NTASKS="many")
    with pytest.raises(ProcessError, match=r"SlurmCluster.*'many'.*--processes 1 to train alone"):
        find_group(None, None, None)


def test_modes_of_one_process(environment):
    environment(**SLURM)
    with pytest.raises(ProcessError, match=r"--mode seeds .* one of 4 \(slurm\).*--processes 1"):
        processes.check_alone("--mode seeds", None)
    processes.check_alone("--mode seeds", 1)


def test_alone_nothing_is_said():
    assert (processes.count(), processes.index()) == (1, 0)
    processes.barrier("a")
    assert processes.gather("a", {"x": 1}) == [{"x": 1}]
    assert processes.broadcast("a", [2]) == [2]


@pytest.mark.parametrize("sees", [True, False])
def test_a_workdir_that_is_not_shared(tmp_path, monkeypatch, sees):
    """Process 0 of two, the other of which looks for the token in its own folder."""
    other = tmp_path / "run" if sees else tmp_path / "other"
    monkeypatch.setattr(rundir, "SHARED_SECONDS", 0.2)
    token: list[str] = []
    fake = types.SimpleNamespace(
        index=lambda: 0,
        count=lambda: 2,
        broadcast=lambda _, value: token.append(value) or value,
        gather=lambda _, seen: [seen, (other / token[0]).exists()],
    )
    monkeypatch.setattr(rundir, "processes", fake)
    config = base.get_config()
    if sees:
        claim_workdir(tmp_path / "run", config)
    else:
        with pytest.raises(
            ConfigError, match=r"of process 0 is not the folder that process 1 sees; put"
        ):
            claim_workdir(tmp_path / "run", config)
    assert [path.name for path in pathlib.Path(tmp_path / "run").iterdir()] == ["config.json"]


def test_only_cluster_knows_the_runtime():
    """What is private to JAX is used in this room alone."""
    package = pathlib.Path(cluster.__file__).parents[1]
    taken = re.compile(r"^\s*(from|import) jax\._src", re.MULTILINE)
    users = {p.name for p in package.rglob("*.py") if taken.search(p.read_text())}
    assert users == {"cluster.py"}
