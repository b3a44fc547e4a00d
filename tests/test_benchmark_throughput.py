"""Throughput beside timm: its flags, what it refuses, and the steps of the peer."""

import sys
import types

import numpy as np
import pytest
import tiny
from absl import flags as absl_flags
from absl import logging

from benchmarks import throughput, timm_steps
from benchmarks.throughput import check_machine, find_peer
from clevit_jax import flags
from clevit_jax.errors import ConfigError
from clevit_jax.performance.throughput import Peer

# ml_collections loads config files by `load_module`.
pytestmark = pytest.mark.filterwarnings(r"ignore:the load_module\(\) method:DeprecationWarning")


@pytest.fixture
def command(monkeypatch):
    """Runs the command with these words; returns its exit code and what it would have timed."""
    asked = []

    def record(config, **options):
        asked.append((config, options))
        return 0

    monkeypatch.setattr(throughput, "throughput", record)
    monkeypatch.setattr(throughput.importlib.util, "find_spec", lambda name: name)
    monkeypatch.setattr(sys, "path", list(sys.path))  # which `parse` lengthens
    verbosity = logging.get_verbosity()

    def run(*words):
        argv = ["throughput", *words]
        monkeypatch.setattr(sys, "argv", argv)  # where ml_collections looks for --config.NAME
        values = absl_flags.FlagValues()
        throughput.define(values)
        rest = flags.parse(values, argv)
        return throughput.main(rest, values), asked

    yield run
    logging.set_verbosity(verbosity)


def test_the_command(command):
    """Peer, config with what overrides it, and the flags of the mode."""
    code, ((config, options),) = command(
        f"--config={tiny.__file__}", "--config.batch_size=8", "--peer=timm", "--batch_sizes=8,16",
        "--json",
    )  # fmt: skip
    assert code == 0
    assert config.batch_size == 8
    peer = options.pop("peer")
    assert isinstance(peer, Peer)
    assert peer.module == timm_steps.__name__
    assert peer.variants == {"timm eager": {"compiled": False}, "timm compiled": {"compiled": True}}
    assert "without the making of views and the finite check" in peer.step
    assert options == {"batch_sizes": [8, 16], "as_json": True}


def test_without_a_peer_it_is_the_mode(command):
    _, ((_, options),) = command(f"--config={tiny.__file__}")
    assert options == {"batch_sizes": None, "peer": None, "as_json": False}


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "Name what to time: --config FILE, or --workdir DIR"),
        (["--workdir=none"], "none holds no run"),
        (
            [f"--config={tiny.__file__}", "--batch_sizes=a"],
            "--batch_sizes is a; it must be numbers",
        ),
        ([f"--config={tiny.__file__}", "more"], "'more' is not a flag"),
    ],
)
def test_mistakes_are_one_sentence(command, capsys, words, said):
    code, asked = command(*words)
    assert (code, asked) == (2, [])
    assert capsys.readouterr().err.startswith(f"error: {said}")


def test_flags_of_other_modes_are_unknown(command, capsys):
    with pytest.raises(SystemExit):
        command(f"--config={tiny.__file__}", "--seeds=3")
    assert "seeds" in capsys.readouterr().err


def test_a_peer_that_is_not_there(monkeypatch):
    with pytest.raises(ConfigError, match=r"^--peer is 'keras'; choose one of timm\.$"):
        find_peer("keras")
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(ConfigError, match=r"^--peer timm needs .*timm; pip install .*\[peer\]"):
        find_peer("timm")


def test_a_machine_that_torch_cannot_use():
    check_machine({"platform": "cpu", "devices": 4})
    check_machine({"platform": "gpu", "devices": 1})
    with pytest.raises(ConfigError, match="runs on CPUs and NVIDIA GPUs, not on tpu"):
        check_machine({"platform": "tpu", "devices": 4})
    with pytest.raises(ConfigError, match="runs on one GPU, and there are 2"):
        check_machine({"platform": "gpu", "devices": 2})


@pytest.fixture
def timm(monkeypatch):
    """A stand-in for timm: a linear layer on the mean colours, which writes down what it is given.

    timm itself is no part of the suite, for its torchvision does not go with every torch.
    """
    torch = pytest.importorskip("torch")

    class SwinTransformer(torch.nn.Module):
        made: list = []  # noqa: RUF012

        def __init__(self, **options):
            super().__init__()
            self.options, self.seen = options, []
            self.scale = torch.nn.Parameter(torch.ones(3))
            self.head = torch.nn.Module()
            self.head.fc = torch.nn.Linear(3, options["num_classes"])
            self.head.fc.register_forward_hook(self.see)
            self.made.append(self)

        def forward_features(self, images):
            self.images = images
            return images.permute(0, 2, 3, 1)

        def forward_head(self, tokens, pre_logits):
            assert pre_logits
            return tokens.mean((1, 2)) * self.scale

        def see(self, layer, features, logits):
            self.seen.append((self.images.detach().clone(), logits, self.training))

    name = "timm.models.swin_transformer"
    for part in ("timm", "timm.models", name):
        monkeypatch.setitem(sys.modules, part, types.ModuleType(part))
    sys.modules[name].SwinTransformer = SwinTransformer
    return SwinTransformer.made


LOSS = {"label_smoothing": 0.1, "contrast": 0.0, "cosine_margin": 0.4, "clip_norm": 5.0}


def peer_request(work, dtype="float32"):
    model = {"image_size": 8, "num_classes": 5, "embed_dim": 8, "depths": [1], "num_heads": [1],
             "window": 2, "drop_path": 0.25, "dtype": dtype}  # fmt: skip
    return {"work": work, "batch": 3, "compiled": False, "platform": "cpu", "threads": 1,
            "views": 2, "loss": LOSS, "model": model}  # fmt: skip


def test_the_peers_training_step(timm):
    """Two views' images in one forward pass, and the gradient of two cross-entropies."""
    import torch

    prepared = timm_steps.prepare_timm_steps(peer_request("training"))
    (module,) = timm
    assert module.options == {
        "img_size": 8, "num_classes": 5, "embed_dim": 8, "depths": [1], "num_heads": [1],
        "window_size": 2, "drop_path_rate": 0.25,
    }  # fmt: skip
    assert prepared.facts["compile_seconds"] is None
    assert prepared.facts["memory_kind"] == "resident"
    before = module.head.fc.weight.detach().clone()
    prepared.run(1)
    images, logits, training = module.seen[-1]
    assert images.shape == (6, 3, 8, 8)
    assert (training, logits.dtype) == (True, torch.float32)
    assert not torch.equal(module.head.fc.weight, before)
    # d(mean cross-entropy)/d(bias) is the mean of softmax less target, and each target sums to 1.
    sums = logits.softmax(-1).sum(0) / 3
    targets = sums - module.head.fc.bias.grad
    assert targets.sum().item() == pytest.approx(2.0, abs=1e-5)  # of two cross-entropies


def test_the_peers_contrastive_loss(timm):
    """It is ours, and reaches what the features come from."""
    import torch

    from clevit_jax.steps.losses import supervised_cosine

    rng = np.random.default_rng(0)
    features = rng.standard_normal((6, 4)).astype(np.float32)
    labels = np.array([0, 1, 0, 1, 1, 2])
    found = timm_steps.contrast(torch, torch.tensor(features), torch.tensor(labels), 0.3)
    ours = supervised_cosine(features, labels.astype(np.int32), margin=0.3)
    assert found.item() == pytest.approx(float(ours), rel=1e-6)
    gradients = []
    for weight in (0.0, 1.0):
        request = peer_request("training")
        prepared = timm_steps.prepare_timm_steps({**request, "loss": {**LOSS, "contrast": weight}})
        prepared.run(1)
        gradients.append(timm[-1].scale.grad)
    assert not torch.allclose(*gradients, atol=1e-6)


def test_the_peers_gradient_is_clipped(timm):
    import torch

    request = peer_request("training")
    timm_steps.prepare_timm_steps({**request, "loss": {**LOSS, "clip_norm": 1e-3}}).run(1)
    gradients = [parameter.grad for parameter in timm[0].parameters()]
    assert torch.nn.utils.get_total_norm(gradients).item() == pytest.approx(1e-3, rel=1e-2)


def test_the_peers_inference(timm):
    """From uint8, normalised as ours is; in bfloat16 where ours is."""
    import torch

    from clevit_jax.views.transforms import normalize

    prepared = timm_steps.prepare_timm_steps(peer_request("inference", "bfloat16"))
    prepared.run(2)
    images, logits, training = timm[0].seen[-1]
    assert (images.shape, training, logits.dtype) == ((3, 3, 8, 8), False, torch.bfloat16)
    assert len(timm[0].seen) == 4  # two of the warm-up
    pixels = images.permute(0, 2, 3, 1).numpy()
    bounds = np.asarray(normalize(np.array([[0, 0, 0], [1, 1, 1]], np.float32)))
    assert (pixels >= bounds[0] - 1e-6).all()
    assert (pixels <= bounds[1] + 1e-6).all()


def test_a_peer_that_cannot_be(timm, monkeypatch):
    with pytest.raises(ValueError, match="this torch sees no GPU"):
        timm_steps.prepare_timm_steps({**peer_request("training"), "platform": "gpu"})
    monkeypatch.setitem(sys.modules, "timm.models.swin_transformer", None)
    with pytest.raises(ValueError, match=r"^timm cannot be imported: "):
        timm_steps.prepare_timm_steps(peer_request("training"))
