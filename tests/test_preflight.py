"""Preflight: its figures against the compiler's and hand counts, its verdict, and bad input.

What needs libtpu is in this file alone, and compiles one small model once.
"""

# ruff: noqa: E501 - HLO has long lines

import dataclasses
import functools
import importlib.util
import json
import math
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny
from flax import nnx
from jax.experimental import topologies as jax_topologies

from clevit_jax.config import resolve
from clevit_jax.distributed import sharding
from clevit_jax.errors import ConfigError
from clevit_jax.kernels import attention, mlp
from clevit_jax.kernels.config import make_kernel_config
from clevit_jax.model import swin, swin_tpu
from clevit_jax.model.config import SwinConfig
from clevit_jax.performance import collectives, flops, hlo, preflight_report, topologies
from clevit_jax.performance import preflight as check
from clevit_jax.performance.cost import Cost, Memory, read_cost
from clevit_jax.performance.preflight import _try, largest_within, preflight
from clevit_jax.performance.preflight_report import PreflightResult
from clevit_jax.steps.jitted import make_jitted_steps

GIB = 2**30
needs_libtpu = pytest.mark.skipif(
    importlib.util.find_spec("libtpu") is None, reason="libtpu is not installed (extra tpu)"
)


def config(**changes):
    made = tiny.get_config()
    made.model.num_classes = 5
    made.batch_size = made.eval.batch_size = 8
    made.update_from_flattened_dict({k.replace("__", "."): v for k, v in changes.items()})
    return made


@pytest.fixture(scope="module")
def v5e(tmp_path_factory):
    """What preflight says of the small config on four chips, as JSON, its exit code, and programs.

    The programs are those that were compiled, by their text before that: compiling takes libtpu
    half a minute.
    """
    programs = {}
    compile_it = jax.stages.Lowered.compile

    def kept(lowered, *args, **more):
        done = programs[lowered.as_text()] = compile_it(lowered, *args, **more)
        return done

    with pytest.MonkeyPatch.context() as patch:
        lines: list[str] = []
        patch.setattr("builtins.print", lambda text, **_: lines.append(text))
        patch.setattr(jax.stages.Lowered, "compile", kept)
        patch.chdir(tmp_path_factory.mktemp("nothing"))
        code = preflight(config(), "v5e:2x2", as_json=True)
    return code, json.loads("\n".join(lines)), programs


def lower_by_hand(mesh_shape=(4, 1)):
    """The same train step, lowered by the test itself."""
    devices = jax_topologies.get_topology_desc(platform="tpu", topology_name="v5e:2x2").devices
    mesh = sharding.make_mesh(*mesh_shape, devices=devices)
    made = make_jitted_steps(resolve(config(), None, "tpu").step, mesh)
    arguments = (made.abstract_state, made.train_batch, made.abstract_numbers)
    return made, made.train_step.trace(*arguments).lower(lowering_platforms=("tpu",)).as_text()


@needs_libtpu
def test_memory_and_arithmetic_are_the_compilers(v5e):
    code, facts, programs = v5e
    assert (code, facts["fits"]) == (0, True)
    made, text = lower_by_hand()
    done = programs[text]
    plan, train = done.memory_analysis(), facts["train"]
    memory = train["memory"]
    assert memory["arguments"] == plan.argument_size_in_bytes
    assert memory["temporaries"] == plan.temp_size_in_bytes
    assert memory["code"] == plan.generated_code_size_in_bytes
    assert memory["outputs"] == plan.output_size_in_bytes - plan.alias_size_in_bytes
    assert train["peak_memory"] == sum(memory.values())
    assert train["flops"] == done.cost_analysis()["flops"]
    # The state is replicated, so a device holds all of it, and its two images of 16 x 16.
    state = sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(made.abstract_state))
    assert memory["arguments"] >= state + 2 * 16 * 16 * 3
    # The gradients, in at most float32, go round once; features and sums beside are small.
    parameters = sum(leaf.size for leaf in jax.tree.leaves(made.abstract_state.params))
    reduced = train["traffic"]["all-reduce"]
    assert 2 * parameters <= reduced["size"] <= 4 * parameters + 10_000
    assert reduced["sent"] == pytest.approx(reduced["size"] * 2 * 3 / 4)
    assert facts["dtype"] == "bfloat16"
    assert facts["seconds"]["compiler"] == pytest.approx(train["cycles"] / 1.503e9, rel=1e-3)
    # Of each block: QKV, attention, projection, MLP; a merge and a norm; each with its gradient.
    # And in training the rotation of the views.
    assert facts["kernels"] == made.kernels
    blocks = sum(made.model.depths)
    assert f"{blocks} of {blocks} blocks run fused" in made.kernels
    assert (train["kernels"]["count"], facts["evaluation"]["kernels"]["count"]) == (
        8 * blocks + 5, 4 * blocks + 2,
    )  # fmt: skip
    assert 0 < facts["seconds"]["kernels"] < facts["seconds"]["step"]
    assert facts["images_per_second_all"] == pytest.approx(8 / facts["seconds"]["step"])


@needs_libtpu
def test_what_a_person_reads(v5e, capsys, monkeypatch):
    """From the same figures: a machine of 15 GiB, one of nothing, and the way out of it."""
    cost = Cost(
        memory=Memory(GIB, 2 * GIB, 0, GIB / 2), flops=1e9, bytes_accessed=2e9, cycles=3e6,
        traffic={"all-reduce": collectives.Traffic(2, 4e6, 6e6)},
        kernels=(hlo.Kernel(197e9, 8.19e8), hlo.Kernel(0, 8.19e8)),
    )  # fmt: skip
    monkeypatch.setattr(check, "_try", lambda *_: (cost, ""))
    assert preflight(config(), "v5e:2x2") == 0
    text = capsys.readouterr().out
    assert "v5e:2x2: 4 x TPU v5 lite, mesh 4 x 1" in text
    assert "FITS: 3.50 of 15.75 GiB (22 %)." in text
    assert "all-reduce, MB sent 6.0 6.0" in " ".join(text.split())
    assert "Kernels: " in text
    assert "kernels beside it 2 2" in " ".join(text.split())
    how = "2.0 by its cycles, 2.0 for kernels at their best, 0.0 for the interconnect;"
    assert f"An update: 4.0 ms ({how}" in text
    big = Cost(Memory(14 * GIB, 2 * GIB, 0, 0), 1e9, 2e9, None, {})
    monkeypatch.setattr(check, "_try", lambda *_: (big, ""))
    assert preflight(config(batch_size=64), "v5e:2x2") == 1
    text = capsys.readouterr().out
    assert "DOES NOT FIT into 15.75 GiB per device." in text
    for way in ("model.remat=blocks", "mesh.fsdp=4", "batch_size=32", "accumulation=2"):
        assert f"--config.{way}" in text
    assert "only the 32 images of a part" in text
    assert "An update: 2.4 ms (it estimates no cycles: 2.4 by bytes read and written, 0.0" in text
    monkeypatch.setattr(check, "_try", lambda step, *_: (cost if "train" in str(step) else big, ""))
    assert preflight(config(), "v5e:2x2") == 1
    text = capsys.readouterr().out
    assert "  * --config.eval.batch_size=4, for the evaluation.\n\n" in text
    assert "remat=blocks" not in text
    monkeypatch.setattr(check, "_try", lambda *_: (big, ""))
    full = preflight(config(batch_size=4, model__remat="blocks", mesh__fsdp=4, eval__batch_size=4),
                     "v5e:2x2")  # fmt: skip
    text = capsys.readouterr().out
    assert full == 1
    assert "--config" not in text
    assert "a machine with more memory per device" in text


@needs_libtpu
@pytest.mark.parametrize("fsdp", [1, 4])
def test_what_goes_from_slice_to_slice(fsdp):
    """By hand: a gradient of 4 MB and a mean, over three slices of four chips."""
    target = topologies.find_target(" v5e : 2x2 * 3 ")
    assert (target.slices, target.processes, len(target.devices)) == (3, 3, 12)
    mesh = sharding.make_mesh(-1, fsdp, devices=target.devices)
    slices = [[sharding.slice_of(d) for d in part] for part in mesh.devices.reshape(3, 4)]
    assert slices == [[0] * 4, [1] * 4, [2] * 4]
    like = jax.ShapeDtypeStruct((1024, 1024), jnp.float32)
    weight = sharding.state_sharding(mesh, like)
    rows = jax.ShapeDtypeStruct((96, 1024), jnp.float32, sharding=sharding.batch_sharding(mesh))

    def step(weight, rows):
        loss, slope = jax.value_and_grad(lambda w: (jnp.tanh(rows @ w) ** 2).mean())(weight)
        return loss, weight - slope

    lowered = (
        jax.jit(step, out_shardings=(sharding.replicated(mesh), weight))
        .trace(jax.ShapeDtypeStruct(like.shape, like.dtype, sharding=weight), rows)
        .lower(lowering_platforms=("tpu",))
    )
    cost = read_cost(lowered.compile(), devices=12, slices=3)
    whole, mean = 4 * 1024**2, 4 * 128  # the mean takes a row of 128 lanes
    # A chip sends its quarter of the gradient: two thirds of it to the next slice, twice.
    assert set(cost.network) == {"all-reduce"}
    assert cost.network["all-reduce"].size == whole / 4 + mean
    assert cost.network["all-reduce"].sent == pytest.approx(4 / 3 * (whole / 4 + mean))
    # Inside the slice the gradient is summed before that, and told to all after it; where the
    # weight is divided, it is gathered instead, in bfloat16, for the product.
    gathered = whole if fsdp == 1 else whole / 2
    assert {kind: traffic.size for kind, traffic in cost.traffic.items()} == {
        "reduce-scatter": whole, "all-gather": gathered, "all-reduce": mean,
    }  # fmt: skip
    assert cost.traffic["reduce-scatter"].sent == 3 / 4 * whole
    assert cost.traffic["all-gather"].sent == 3 / 4 * gathered
    times = PreflightResult.times(mock.Mock(target=target, train=cost, model_flops=1.0))
    assert times["network"] == pytest.approx(cost.network["all-reduce"].sent / (25e9 / 8))


@needs_libtpu
def test_two_slices(capsys):
    """All of the step, kernels and views as well."""
    assert preflight(config(), "v5e:2x2*2", as_json=True) == 0
    facts = json.loads(capsys.readouterr().out)
    assert (facts["devices"], facts["slices"], facts["processes"]) == (8, 2, 2)
    assert facts["mesh"] == {"data": 8, "fsdp": 1}
    train, evaluation = facts["train"]["network"], facts["evaluation"]["network"]
    assert set(train) == {"all-gather", "all-reduce"}  # features with labels; gradients and sums
    assert set(evaluation) == {"all-reduce"}
    seconds = facts["seconds"]
    sent = sum(traffic["sent"] for traffic in train.values())
    assert 0 < seconds["network"] == pytest.approx(sent / (25e9 / 8))
    parts = ("compiler", "kernels", "interconnect", "network")
    assert seconds["step"] == pytest.approx(sum(seconds[part] for part in parts))


@needs_libtpu
def test_what_a_person_reads_of_slices(capsys, monkeypatch):
    across = {"all-reduce": collectives.Traffic(1, 25e6, 25e6)}
    cost = Cost(Memory(14 * GIB, 0, 0, 0), 1e9, 2e9, 3e6, {}, network=across)
    monkeypatch.setattr(check, "_try", lambda *_: (cost, ""))
    assert preflight(config(), "v5e:2x2*2") == 0
    text = capsys.readouterr().out
    assert "v5e:2x2*2: 8 x TPU v5 lite on 2 hosts in 2 slices, mesh 8 x 1" in text
    assert "all-reduce, MB sent from slice to slice 25.0 25.0" in " ".join(text.split())
    assert "An update: 10.0 ms (2.0 by its cycles, " in text
    assert "0.0 for the interconnect, 8.0 for the network between slices;" in text
    assert preflight(config(batch_size=16, eval__batch_size=16), "v4:2x2x1*2") == 0
    assert "nothing for the network between slices, whose speed is not known" in (
        capsys.readouterr().out
    )
    with pytest.raises(ConfigError, match=r"^mesh\.fsdp is 8, .* the 4 devices of each of the 2 "):
        preflight(config(mesh__fsdp=8), "v5e:2x2*2")
    big = Cost(Memory(16 * GIB, 0, 0, 0), 1e9, 2e9, None, {})
    monkeypatch.setattr(check, "_try", lambda *_: (big, ""))
    assert preflight(config(batch_size=64), "v5e:2x2*2") == 1
    assert "--config.mesh.fsdp=4 divides" in capsys.readouterr().out


@needs_libtpu
def test_the_compiler_gives_up():
    """The figures are its own."""
    target = topologies.find_target("v5e:2x2")
    where = jax.sharding.SingleDeviceSharding(target.devices[0])
    shape = jax.ShapeDtypeStruct((1 << 20, 1 << 20), jnp.bfloat16, sharding=where)
    step = jax.jit(lambda x: jnp.sin(x.T) @ x, out_shardings=where)
    cost, problem = _try(step, (shape,), target)
    assert cost is None
    assert "15.75G" in problem


def planned(topology, images, stage, **model):
    """The plan of a block with shifted windows, and a function that compiles for that chip."""
    target = topologies.find_target(topology)
    mesh = sharding.make_mesh(1, 1, devices=target.devices[:1])
    config = SwinConfig.variant(kernels=make_kernel_config(mesh, interpret=False), **model)
    where = jax.sharding.SingleDeviceSharding(target.devices[0])

    def compile_for_it(function, *shapes):
        like = [jax.ShapeDtypeStruct(shape, dtype, sharding=where) for shape, dtype in shapes]
        jax.jit(function).trace(*like).lower(lowering_platforms=("tpu",)).compile()

    return swin_tpu.plan_blocks(config, images)[stage][1], compile_for_it


@needs_libtpu
def test_the_mlp_that_is_planned_fits_the_chip():
    """In float32, whose products spill: of the most channels, and on the least memory for them."""
    plan, compile_for_it = planned(
        "v5p:2x2x1", 32, 3, name="large", image_size=384, window=12, dtype=jnp.float32
    )
    x, hidden = ((12, 12, 32, 1536), jnp.float32), 4 * 1536
    compile_for_it(
        functools.partial(mlp.mlp_gradient, grid=plan.grid.without_roll, parts=plan.parts), x, x,
        *[(shape, jnp.float32) for shape in ((32,), (1536, hidden), (hidden,), (hidden, 1536))],
    )  # fmt: skip


@needs_libtpu
def test_attention_fits_the_chip():
    """With as many images as a step may have, which are too many there."""
    plan, compile_for_it = planned(
        "v4:2x2x1", 48, 0, name="tiny", image_size=448, window=7, dtype=jnp.bfloat16
    )
    heads, tokens = plan.heads, (112, 112, 48)
    grid = dataclasses.replace(plan.grid, max_images=48)
    bias = (4 * heads.groups, heads.keys, heads.together * heads.queries)
    compile_for_it(
        functools.partial(attention.attend_gradient, grid=grid, heads=heads),
        ((*tokens, 3 * heads.channels), jnp.bfloat16), (bias, jnp.float32),
        ((*tokens, heads.channels), jnp.bfloat16),
    )  # fmt: skip


def test_the_compiler_fails():
    """Its own mistakes are told in its first line, without what it says below."""
    step = mock.MagicMock()
    compile_ = step.trace.return_value.lower.return_value.compile
    compile_.side_effect = jax.errors.JaxRuntimeError("INTERNAL: no tiles\n  offset_map")
    target = mock.Mock()
    target.name = "h200:8"
    with pytest.raises(ConfigError, match=r"^The compiler for h200:8 fails: INTERNAL: no tiles$"):
        _try(step, (), target)


@pytest.mark.parametrize(
    ("topology", "says"),
    [
        ("v5e", r"'v5e'; it must be local, or .* v5e:4x4"),
        ("v5e:8", "'v5e:8'; it must be"),
        ("v9:2x2", "'v9:2x2'; it must be"),
        ("h200:0", "'h200:0'; it must be"),
        ("h200:8*2", r"'h200:8\*2'; slices are of TPUs: .* h200:16, two hosts of 8\.$"),
        ("v5e*2", r"'v5e\*2'; it must be .* v5e:4x4\*2 is two slices\.$"),
        *[
            (f"v5e : 4x4 *{count}", r"after \* stands how many .* from 1 to 9999: v5e:4x4\*2\.$")
            for count in ("", "0", "-1", "1.5", "x", "2*2", "10000")
        ],
        ("", "''; it must be"),
    ],
)
def test_no_such_machine(topology, says):
    with pytest.raises(ConfigError, match=says):
        preflight(config(), topology)


@needs_libtpu
def test_a_shape_that_cannot_be():
    with pytest.raises(ConfigError, match="--topology v5e:1x1 cannot be compiled for: "):
        preflight(config(), "v5e:1x1")


def test_what_compiles_is_not_installed(monkeypatch):
    def missing(package):
        raise topologies.importlib.metadata.PackageNotFoundError(package)

    monkeypatch.setattr(topologies.importlib.metadata, "version", missing)
    with pytest.raises(ConfigError, match=r"libtpu is not installed.*'\.\[tpu\]'"):
        preflight(config(), "v6e:2x2")
    with pytest.raises(ConfigError, match=r"jax-cuda13-plugin is not installed.*'\.\[cuda\]'"):
        preflight(config(), "H200:8")


def test_bad_settings(tmp_path):
    with pytest.raises(ConfigError, match=r"batch_size is 6, .* 4 devices .* is 4 or 8\."):
        preflight(config(batch_size=6), "local")
    with pytest.raises(ConfigError, match=r"set --config.model.num_classes=N, or --config.data"):
        preflight(config(model__num_classes=0), "local")
    with pytest.raises(ConfigError, match=r"model\.window"):
        preflight(config(model__window=1), "local")


def test_here(capsys, tmp_path, monkeypatch):
    """On the CPUs that are here, with classes that are still to be made; nothing is written."""
    monkeypatch.chdir(tmp_path)
    made = config(model__num_classes=0, data__leaves__classes=3, data__root="leaves")
    assert preflight(made, "local", as_json=True) == 0
    facts = json.loads(capsys.readouterr().out)
    assert (facts["devices"], facts["num_classes"], facts["dtype"]) == (4, 3, "float32")
    assert facts["train"]["peak_memory"] > facts["evaluation"]["peak_memory"] > 0
    assert facts["seconds"] == {}
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("limit", [5, 9, 10, 17, 160, 161])
@pytest.mark.parametrize("start", [1, 4, 30])
@pytest.mark.parametrize("gives_up", [False, True])
@pytest.mark.parametrize("padded", [1, 4])
def test_the_largest_batch(limit, start, gives_up, padded):
    """Found in few tries where memory is 5 + 3 a unit, also where the compiler tells no figure.

    Also where it grows in steps, because a batch is padded.
    """
    tries = []

    def peak(units):
        tries.append(units)
        found = 5.0 + 3 * padded * math.ceil(units / padded)
        return float("inf") if gives_up and found > limit else found

    found = largest_within(peak, limit, start=start, known=peak(start))
    assert found == max(0, (limit - 5) // (3 * padded)) * padded
    assert len(tries) <= (8 if padded == 1 else 11)
    assert len(set(tries)) == len(tries)


PUBLISHED = [  # Swin's README: GMACs of classification at 1000 classes
    (SwinConfig.variant("tiny", image_size=224), 4.5),
    (SwinConfig.variant("small", image_size=224), 8.7),
    (SwinConfig.variant("base", image_size=224), 15.4),
    (SwinConfig.variant("base", image_size=384, window=12), 47.1),
    (SwinConfig.variant("large", image_size=224), 34.5),
]


@pytest.mark.parametrize(("model", "gmacs"), PUBLISHED)
def test_arithmetic_is_what_is_published(model, gmacs):
    assert flops.forward_flops(model) / 2e9 == pytest.approx(gmacs, rel=0.02)


def test_arithmetic_is_what_the_compiler_counts():
    """Products alone are counted here, so that the compiler's figure is a little larger."""
    model = SwinConfig(image_size=112, embed_dim=96, depths=(1, 2), num_heads=(3, 6), window=7)
    graphdef, params = swin.abstract_swin(model)
    images = jax.ShapeDtypeStruct((1, 112, 112, 3), np.float32)
    run = jax.jit(lambda params, images: nnx.merge(graphdef, params)(images))
    counted = run.lower(params, images).compile().cost_analysis()["flops"]
    ours = flops.forward_flops(model)
    assert ours <= counted <= 1.1 * ours
    assert flops.training_flops(model, 4, 2) == 24 * ours


HLO = """
HloModule jit_step

%add (a: f32[], b: f32[]) -> f32[] {
  ROOT %sum = f32[] add(%a, %b)
}

%body (p: (s32[], f32[8])) -> (s32[], f32[8]) {
  %g = bf16[4,8]{1,0} all-gather(%x), channel_id=1, replica_groups=[2,4]<=[8], dimensions={0}
  ROOT %m = f32[8] multiply(%x, %x), backend_config={"estimated_cycles":"7"}
}

%fused (p: f32[8]) -> f32[8] {
  %r = f32[2]{0} reduce-scatter(%p), channel_id=2, replica_groups={{0,1,2,3},{4,5,6,7}}, to_apply=%add
  ROOT %q = f32[8] negate(%p), backend_config={"estimated_cycles":"1000"}
}

ENTRY %main (p: f32[8]) -> f32[8] {
  %w = (s32[], f32[8]) while(%t), condition=%c, body=%body, backend_config={"known_trip_count":{"n":"5"}}
  %f = f32[8] fusion(%p), kind=kLoop, calls=%fused, backend_config={"estimated_cycles":"100"}
  %s = (f32[6]{0}, bf16[10]{0}) all-reduce-start(%p, %f), channel_id=3, replica_groups=mesh['x'=4,'y'=2] {'x','y'}, to_apply=%add
  %d = (f32[6]{0}, bf16[10]{0}) all-reduce-done(%s)
  %cs = (f32[3]{0}, f32[3]{0:T(8)S(1)}) collective-permute-start(%p), channel_id=4, source_target_pairs={{0,1},{1,0}}
  %cd = f32[3]{0} collective-permute-done(%cs)
  %k = f32[8] custom-call(%f), custom_call_target="tpu_custom_call", backend_config={"custom_call_config":{"body":"TUzv","cost_estimate":{"flops":"3940000","transcendentals":"0","bytes_accessed":"16","remote_bytes_transferred":"0"}}}
  %l = f32[8] custom-call(%k), custom_call_target="tpu_custom_call", backend_config={"custom_call_config":{"cost_estimate":{"flops":"2","transcendentals":"9","bytes_accessed":"8190000"}}}
  ROOT %e = f32[8] copy(%f), backend_config={"estimated_cycles":"10"}
}
"""


def test_cycles_by_hand():
    """Loops as often as they run; a fusion speaks for what is in it."""
    assert hlo.read_cycles(HLO) == 5 * 7 + 100 + 10
    assert hlo.read_cycles(HLO.replace("estimated_cycles", "nothing")) is None


def test_kernels_by_hand():
    """Each takes as long as the slower of its arithmetic and its memory; v5e: 197 T, 819 G."""
    kernels = hlo.read_kernels(HLO)
    assert kernels == (hlo.Kernel(3.94e6, 16), hlo.Kernel(2, 8.19e6))
    chip = topologies.TPUS["v5e"]
    cost = Cost(Memory(0, 0, 0, 0), 1.0, 1.0, 1.503e9, {}, kernels)
    target = mock.Mock(chip=chip, devices=[0])
    result = mock.Mock(
        spec=preflight_report.PreflightResult, target=target, train=cost, model_flops=1.0
    )
    times = preflight_report.PreflightResult.times(result)
    assert times["kernels"] == pytest.approx(2e-8 + 1e-5)
    assert times["step"] == pytest.approx(1 + 2e-8 + 1e-5, rel=1e-4)


GPU_HLO = """HloModule m, is_scheduled=true

%fused (p: bf16[100]) -> bf16[100] {
  %p.1 = bf16[100]{0} parameter(0)
  ROOT %n = bf16[100]{0} negate(%p.1)
}

%body (s: (f32[8], s32[])) -> (f32[8], s32[]) {
  %s = (f32[8]{0}, s32[]) parameter(0)
  %x = f32[8]{0} get-tuple-element(%s), index=0
  %y = f32[8]{0} fusion(%x), kind=kLoop, calls=%fused
  ROOT %t = (f32[8]{0}, s32[]) tuple(%y, %x)
}

ENTRY %main (a: bf16[4,10], b: bf16[10,3]) -> bf16[100] {
  %a = bf16[4,10]{1,0} parameter(0)
  %b = bf16[10,3]{1,0} parameter(1), metadata={op_name="%a"}
  %view = bf16[10,4]{0,1} bitcast(%a)
  %mm = (bf16[4,3]{1,0}, s8[33554432]{0}) custom-call(%view, /*index=1*/%b), custom_call_target="__cublas$gemm"
  %w = (f32[8]{0}, s32[]) while(%mm), condition=%c, body=%body, backend_config={"known_trip_count":{"n":"5"}}
  %rs = f32[7]{0} all-reduce-start(%w), channel_id=3
  %rd = f32[7]{0} all-reduce-done(%rs)
  ROOT %f = bf16[100]{0} fusion(%mm, %rd), kind=kLoop, calls=%fused, metadata={op_name="x(%a)"}
}
"""


def test_bytes_by_hand():
    """Of the product (without its workspace), five times the loop, a collective, and a fusion."""
    product, loop = 80 + 60 + 24, 5 * (32 + 32)
    started, fusion = 28 + (32 + 4), 200 + 24 + 28
    assert hlo.read_bytes(GPU_HLO) == product + loop + started + fusion


def test_bytes_are_what_the_compiler_counts():
    """The CPU's counts them by itself."""
    image, kernel = (jax.ShapeDtypeStruct(shape, jnp.float32) for shape in ((96, 64), (64, 32)))
    done = jax.jit(lambda a, b: jnp.tanh(a @ b + 1).sum(0)).lower(image, kernel).compile()
    counted = done.cost_analysis()["bytes accessed"]
    assert counted > 4 * (96 * 64 + 64 * 32 + 32)
    assert hlo.read_bytes(done.as_text()) == pytest.approx(counted, rel=1e-3)


def test_traffic_by_hand():
    found = collectives.read_traffic(HLO, devices=8)
    gather, scatter = found["all-gather"], found["reduce-scatter"]
    assert (gather.count, gather.size, gather.sent) == (5, 5 * 64, 5 * 64 * 3 / 4)
    assert (scatter.count, scatter.size, scatter.sent) == (1, 4 * 8, 4 * 8 * 3 / 4)
    reduced, permuted = found["all-reduce"], found["collective-permute"]
    assert (reduced.count, reduced.size) == (1, 6 * 4 + 10 * 2)
    assert reduced.sent == pytest.approx(44 * 2 * 7 / 8)
    assert (permuted.count, permuted.size, permuted.sent) == (1, 12, 12)
    assert set(found) == {"all-gather", "reduce-scatter", "all-reduce", "collective-permute"}


def test_the_facts_fit_together():
    """Peaks are powers of two a cycle; two devices of a TPU7x or v4 chip make the chip."""
    for chip in topologies.TPUS.values():
        assert np.log2(chip.peak / chip.clock) % 1 == 0
        assert 0.9e9 < chip.clock < 2.5e9
    assert preflight_report.GIB == GIB
