"""Ours against the Swin of transformers, alive: numbers, gradients, files there and back."""

import dataclasses
import socket
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import safetensors.torch
import torch
import transformers
from flax import nnx

from clevit_jax.errors import WeightsError
from clevit_jax.model.config import SwinConfig
from clevit_jax.model.swin import abstract_swin
from clevit_jax.weights import dialects, export
from clevit_jax.weights.convert import (
    Weights,
    named_leaves,
    read_torch_weights,
    to_dialect,
    to_official,
)
from clevit_jax.weights.converted import read_converted, write_converted
from clevit_jax.weights.files import read_weight_file
from clevit_jax.weights.fit import fit_weights
from clevit_jax.weights.verify import Verification, build_torch_swin, verify

BATCH, CLASSES, CHANNELS = 2, 5, 16
# Grids 14 and 7: the last is one window. Grids 28 and 14: each stage shifts its windows.
SIZES = (56, 112)


@pytest.fixture(scope="module", autouse=True)
def offline():
    """No test, and no library in it, may open a connection."""
    with pytest.MonkeyPatch.context() as patch:
        for name in ("connect", "connect_ex"):
            patch.setattr(socket.socket, name, lambda *_: pytest.fail("opens a connection"))
        patch.setattr(socket, "getaddrinfo", lambda *_, **__: pytest.fail("asks for an address"))
        yield


def hugging_face(image_size):
    """transformers' own model with random numbers in every parameter, the same for every size."""
    config = transformers.SwinConfig(
        image_size=image_size, embed_dim=8, depths=[2, 2], num_heads=[2, 4], window_size=7,
        num_labels=CLASSES,
    )  # fmt: skip
    model = transformers.SwinForImageClassification(config).eval()
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            if name.endswith("relative_position_bias_table"):
                parameter.copy_(noise)
            elif parameter.ndim > 1:
                parameter.copy_(1.5 * noise / parameter[0].numel() ** 0.5)
            else:  # biases, and scales of norms
                parameter.copy_(0.3 * noise + ("norm" in name and name.endswith("weight")))
    return model


@pytest.fixture(scope="module")
def models():
    return {size: hugging_face(size) for size in SIZES}


@pytest.fixture(scope="module")
def files(models, tmp_path_factory):
    """Kind -> a file of the same weights, as transformers and torch write them."""
    folder = tmp_path_factory.mktemp("hub")
    models[56].save_pretrained(folder)
    state = models[56].state_dict()
    torch.save(state, folder / "pytorch_model.bin")
    half = {name: x.half() if x.is_floating_point() else x for name, x in state.items()}
    torch.save(half, folder / "half.bin")
    return {
        "hub": folder / "model.safetensors",
        "memory": folder / "pytorch_model.bin",  # with the names that the modules have
        "half": folder / "half.bin",
    }


@pytest.fixture(scope="module")
def read(files):
    return read_torch_weights(files["hub"])


@dataclasses.dataclass
class Parity:
    """Logits, features, and gradients by their official names of a random weighting of these."""

    images: np.ndarray
    answers: tuple[np.ndarray, np.ndarray]
    gradients: dict[str, np.ndarray]
    our_answers: tuple[jax.Array, jax.Array]
    our_gradients: dict[str, np.ndarray]


def compare(theirs, read, size):
    rng = np.random.RandomState(size)
    images = rng.standard_normal((BATCH, size, size, 3)).astype(np.float32)
    weigh = [rng.standard_normal((BATCH, n)).astype(np.float32) for n in (CLASSES, CHANNELS)]

    features = theirs.swin(torch.from_numpy(images).permute(0, 3, 1, 2)).pooler_output
    answers = (theirs.classifier(features), features)
    sum((a * torch.from_numpy(w)).sum() for a, w in zip(answers, weigh, strict=True)).backward()
    named = {name: parameter.grad.numpy() for name, parameter in theirs.named_parameters()}

    graphdef = abstract_swin(dataclasses.replace(read.model, image_size=size))[0]

    def weighted(params, images):
        answers = nnx.merge(graphdef, params)(images)
        return sum(jnp.sum(a * w) for a, w in zip(answers, weigh, strict=True)), answers

    ours = jax.jit(jax.value_and_grad(weighted, has_aux=True))
    (_, our_answers), gradients = ours(read.params, images)
    return Parity(
        images,
        tuple(answer.detach().numpy() for answer in answers),
        dialects.to_official_names(named, "huggingface")[0],
        our_answers,
        to_official(gradients),
    )


@pytest.fixture(scope="module")
def parity(models, read):
    return {size: compare(models[size], read, size) for size in SIZES}


def close(got, expected, tolerance):
    """Equal but for `tolerance` of the largest value."""
    np.testing.assert_allclose(got, expected, rtol=0, atol=tolerance * np.abs(expected).max())


def same(got, expected):
    """Equal to the bit, and of the same names."""
    assert set(got) == set(expected)
    for name, value in expected.items():
        assert got[name].dtype == value.dtype, name
        np.testing.assert_array_equal(got[name], value, err_msg=name)


@pytest.mark.parametrize("size", SIZES)
def test_logits_and_features_equal_transformers(parity, size):
    for expected, got in zip(parity[size].answers, parity[size].our_answers, strict=True):
        assert got.shape == expected.shape
        np.testing.assert_allclose(got, expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize("size", SIZES)
def test_every_gradient_equals_transformers(parity, size):
    expected, got = parity[size].gradients, parity[size].our_gradients
    assert set(got) == set(expected)
    for name, gradient in expected.items():
        apart = np.linalg.norm(got[name] - gradient) / np.linalg.norm(gradient)
        assert apart < 1e-5, (name, apart)
        close(got[name], gradient, 1e-4)


def test_both_spellings_of_transformers_read_the_same(files, read):
    other = read_torch_weights(files["memory"])
    assert (other.dialect, other.model) == ("huggingface", read.model)
    assert read.model.image_size == 56
    same(named_leaves(other.params), named_leaves(read.params))
    names = read_weight_file(files["memory"]).tensors
    assert set(names) != set(read_weight_file(files["hub"]).tensors) or (
        transformers.__version__.startswith("4.")
    )


@pytest.fixture(scope="module")
def microsoft(golden):
    return read_torch_weights(golden / "swin_nano_224.pth")


@pytest.mark.parametrize("suffix", [".safetensors", ".pth"])
@pytest.mark.parametrize("dialect", export.WRITTEN_DIALECTS)
def test_round_trip_is_the_identity(golden, microsoft, tmp_path, dialect, suffix):
    first = microsoft
    target = tmp_path / f"there{suffix}"
    export.write_torch_weights(first, target, dialect)
    back = read_torch_weights(target)
    # Without the wrapper nothing tells Microsoft's names from those of old timm.
    unwrapped = dialect == "microsoft" and suffix == ".safetensors"
    assert back.dialect == ("timm<0.9" if unwrapped else dialect)
    assert back.model == first.model
    same(named_leaves(back.params), named_leaves(first.params))
    official = torch.load(golden / "swin_nano_224.pth", weights_only=True)["model"]
    official = {name: tensor.numpy() for name, tensor in official.items()}
    same(to_dialect(back, "microsoft"), official)  # index and mask tables too


def test_transformers_loads_the_exported_folder(parity, read, tmp_path):
    names = tuple(f"cultivar {index}" for index in range(CLASSES))
    folder = tmp_path / "hub"
    export.write_torch_weights(dataclasses.replace(read, class_names=names), folder, "huggingface")
    loaded, found = transformers.SwinForImageClassification.from_pretrained(
        folder, output_loading_info=True
    )
    assert not any(found.values()), found
    assert loaded.config.id2label == dict(enumerate(names))
    assert loaded.config.label2id == {name: index for index, name in enumerate(names)}
    with torch.inference_mode():
        logits = loaded(torch.from_numpy(parity[56].images).permute(0, 3, 1, 2)).logits.numpy()
    np.testing.assert_allclose(logits, parity[56].our_answers[0], atol=1e-5, rtol=0)


@pytest.mark.parametrize("suffix", [".safetensors", ".pth"])
def test_timm_loads_the_exported_file_strictly(golden, microsoft, tmp_path, suffix):
    timm = pytest.importorskip("timm.models.swin_transformer", reason="timm is not installed")
    target = tmp_path / f"there{suffix}"
    export.write_torch_weights(microsoft, target, "timm")
    model = timm.SwinTransformer(
        embed_dim=16, depths=(2, 2, 2, 2), num_heads=(1, 2, 4, 8), num_classes=21
    )
    load = torch.load if suffix == ".pth" else safetensors.torch.load_file
    model.load_state_dict(load(target), strict=True)
    images = np.random.RandomState(224).standard_normal((2, 224, 224, 3)).astype(np.float32)
    with torch.inference_mode():
        logits = model.eval()(torch.from_numpy(images).permute(0, 3, 1, 2)).numpy()
    expected = np.load(golden / "swin_nano.npz")["logits_224"]
    np.testing.assert_allclose(logits, expected, atol=1e-5, rtol=0)


def test_verify_of_microsofts_file(golden, microsoft):
    found = verify(microsoft, golden / "swin_nano_224.pth", seed=224)
    assert found.ok
    assert str(found).startswith(f"Verified with {found.library} (names ")
    expected = np.load(golden / "swin_nano.npz")
    for what, (_, largest) in found.differences.items():
        # The official code's numbers for image 0 of this seed.
        assert largest == pytest.approx(np.abs(expected[f"{what}_224"][0]).max(), abs=1e-5)


@pytest.mark.parametrize("kind", ["hub", "half"])
def test_verify_reads_the_file_with_its_own_library(files, kind, monkeypatch, capfd):
    weights_ = read_torch_weights(files[kind])
    monkeypatch.setattr(dialects, "from_official_names", lambda *_: pytest.fail("uses our tables"))
    found = verify(weights_, files[kind])
    assert found.ok
    version = f"transformers {transformers.__version__}"
    assert f"Verified with {version} (names read by transformers itself), 1 random" in str(found)
    assert capfd.readouterr() == ("", "")


def test_verify_finds_queries_taken_for_keys(files, read):
    """What a wrong name table does: each tensor is there and fits, and two are in wrong places."""
    params = jax.tree.map(np.copy, read.params)
    for stage in params["layers"].values():
        for block in stage["blocks"].values():
            for part in block["attn"]["qkv"].values():
                query, key, value = np.split(part, 3, axis=-1)
                part[...] = np.concatenate([key, query, value], axis=-1)
    found = verify(dataclasses.replace(read, params=params), files["hub"])
    assert not found.ok
    assert str(found).startswith("DIFFERENT from transformers ")


def test_verify_finds_one_wrong_number(files, read):
    """An offset of one class moves its logit by as much, and no feature."""
    params = jax.tree.map(np.copy, read.params)
    params["head"]["bias"][3] += 0.5
    found = verify(dataclasses.replace(read, params=params), files["hub"])
    assert not found.ok
    assert found.differences["logits"][0] == pytest.approx(0.5, abs=1e-5)
    assert found.differences["features"][0] < 1e-5
    assert ": largest difference of logits 5.0e-01 (of " in str(found)


def test_verify_of_a_changed_head_and_of_a_folder_goes_by_our_table(files, read, tmp_path):
    """There is no file that another library could read by itself. Training may be in bfloat16."""
    flipped, report = fit_weights(read, read.model, class_map=np.arange(CLASSES)[::-1])
    changed = dataclasses.replace(read, params=flipped, report=report)
    folder = tmp_path / "folder"
    write_converted(read, folder)
    training = dataclasses.replace(read.model, dtype=jnp.bfloat16, drop_path=0.2, remat="blocks")
    trained = dataclasses.replace(read_converted(folder), model=training)
    for given, source in ((changed, files["hub"]), (trained, folder)):
        found = verify(given, source)
        assert found.ok
        assert "(names by our own table)" in str(found)


def test_a_library_that_cannot_hold_the_network_says_so():
    """transformers has no window that shrinks to the grid of its stage, here 2 of 4."""
    model = SwinConfig(
        image_size=32, num_classes=3, embed_dim=4, depths=(1, 1, 1), num_heads=(1, 1, 2), window=4
    )
    params = jax.tree.map(lambda leaf: np.ones(leaf.shape, np.float32), abstract_swin(model)[1])
    with pytest.raises(WeightsError, match=r"transformers does not load them: .*bias_table"):
        build_torch_swin(Weights(model, params, "clevit_jax", "run"), "transformers")


def test_without_a_library_it_says_what_to_install(files, read, tmp_path, monkeypatch):
    for name in ("timm", "timm.models"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    (tmp_path / "timm.py").write_text("raise RuntimeError('built for another torch')")
    monkeypatch.syspath_prepend(tmp_path)
    for name in ("transformers", "torchvision", "torchvision.models.swin_transformer"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(WeightsError) as error:
        verify(read, files["hub"])
    assert "pip install 'clevit_jax[convert]' timm" in str(error.value)
    assert "timm cannot be imported (built for another torch)" in str(error.value)
    assert "transformers cannot be imported" in str(error.value)


@pytest.mark.parametrize(
    ("apart", "largest", "ok"),
    [(0.9e-4, 1, True), (1.1e-4, 1, False), (0, 0, True), (np.nan, 1, False), (0, np.nan, False)],
)
def test_tolerance_is_a_ten_thousandth_of_the_largest(apart, largest, ok):
    for differences in ({"logits": (apart, largest), "features": (0, 1)},
                        {"logits": (0, 1), "features": (apart, largest)}):  # fmt: skip
        found = Verification("timm 1.0", "names by our own table", 224, differences)
        assert found.ok == ok
        assert str(found).startswith("Verified with" if ok else "DIFFERENT from")
