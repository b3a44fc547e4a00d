"""Static costs of a TPU's program, against hand counts over small texts of the compiler's form."""

import pytest

from benchmarks import tpu_schedule

BUNDLES = """\
LH: loop header
= control target key end

     0   :  { %1 = nop }
   0x1   :  { %2 = nop }
   0x2   : > { %3 = sbr.rel (%p1_p0) target bundleno = 5 (0x5), region = 3 }
   0x3   : >> { %4 = nop }
   0x4   : >> { %p7_p2 = scmp.ge.s32.totalorder %s1_s0, 5 /* loop exit test */  ;;  %5 = nop }
   0x5   : >> { %6 = sbr.rel (!%p7_p2) target bundleno = 3 (0x3), region = 4 }
   0x6 LE: > { %p8_p1 = scmp.ge.s32.totalorder %s2_s1, 30 /* loop exit test */ }
   0x7   : > { %7 = sbr.rel (!%p8_p1) target bundleno = 2 (0x2), region = 101 }
   0x8   :  { %8 = shalt }
"""

KERNEL = (
    "%{0} = bf16[16,256]{{1,0:T(8,128)(2,1)}} custom-call(%x, %w), "
    'custom_call_target="tpu_custom_call", frontend_attributes={{kernel_metadata={{\n'
    '  "steps":"{1}"}}}}, metadata={{op_name="jit(step)/layers.2/blocks/mlp"}}, '
    'backend_config={{"custom_call_config":{{"body":"{2}"}}}}'
)
HLO = f"""HloModule jit_step, is_scheduled=true

%fused (p: f32[8]) -> f32[8] {{
  ROOT %n = f32[8]{{0}} negate(%p), backend_config={{"estimated_cycles":"1000"}}
}}

ENTRY %main (x: bf16[16,256]) -> bf16[16,256] {{
  %x = bf16[16,256]{{1,0:T(8,128)(2,1)}} parameter(0)
  %w = bf16[256,256]{{1,0:T(8,128)(2,1)S(1)}} parameter(1)
  %f = f32[3,5]{{1,0:T(8,128)}} fusion(%x, %x), metadata={{op_name="jit(step)/optimizer/add"}}, backend_config={{"estimated_cycles":"70"}}
  %c = (f32[3,5]{{1,0:T(8,128)}}, f32[3,5]{{1,0:T(8,128)S(1)}}, u32[]{{:S(2)}}) copy-start(%f)
  %s = ((bf16[16,256]{{1,0:T(8,128)(2,1)}}), bf16[8,128]{{1,0:T(8,128)(2,1)S(1)}}, s32[]{{:S(2)}}) slice-start(%x), slice={{[0:8], [0:128]}}
  %h = (f32[3,5]{{1,0:T(8,128)S(1)}}, f32[3,5]{{1,0:T(8,128)}}, u32[]{{:S(2)}}) copy-start(%f)
  {KERNEL.format("mlp.1", 7, "SAME")}
  {KERNEL.format("mlp.2", 9, "SAME")}
  ROOT %b = bf16[16,256]{{1,0:T(8,128)(2,1)}} bitcast(%mlp.2)
}}
"""  # noqa: E501 - HLO has long lines


def write_schedule(folder, kernel):
    (folder / f"17-{kernel}-65-packed-bundles-post-ra.txt").write_text(BUNDLES)
    (folder / f"17-{kernel}-64-schedule-analysis_packed-bundles-post-ra.txt").write_text("")


def test_bundles_by_hand():
    """Bundles 2, 6 and 7 once a step, 3 to 5 five times; 0, 1 and 8 are outside of the loop."""
    assert tpu_schedule.count_bundles(BUNDLES) == (3, 3 + 5 * 3)


def test_a_loop_that_is_not_understood():
    text = BUNDLES.replace("5 /* loop exit", "%s9 /* loop exit")
    with pytest.raises(ValueError, match="ends in bundle 0x5 has no known count"):
        tpu_schedule.count_bundles(text)


def test_operations_by_hand(tmp_path):
    """Two kernels that are the same, of which the compiler wrote down one."""
    write_schedule(tmp_path, "mlp.2")
    found = {o.name: o for o in tpu_schedule.read_operations(HLO, tmp_path)}
    assert set(found) == {"f", "c", "s", "h", "mlp.1", "mlp.2"}
    tile = 8 * 128
    assert [found[name].cycles for name in ("f", "mlp.1", "mlp.2")] == [70, 3 + 7 * 18, 3 + 9 * 18]
    # A padded tile of float32, and the operand once; weights on the chip are free.
    assert found["f"].size == 4 * tile + 2 * 4 * tile
    assert found["mlp.1"].size == 2 * 2 * 4 * tile
    # To the chip, a slice to the chip, and from the chip: each crosses once.
    assert [found[name].size for name in "csh"] == [4 * tile, 2 * tile, 4 * tile]
    kernel, plain = found["mlp.1"], found["f"]
    assert kernel.rule_a(64) == 16 * tile / 64  # 256, more than its 129 of the schedule
    assert kernel.rule_b(512) == 129  # more than its 32 of the memory
    assert (plain.rule_a(1), plain.rule_b(512)) == (70, 24)


def test_a_kernel_without_a_schedule(tmp_path):
    with pytest.raises(ValueError, match=r"left no schedule of the kernel mlp\.1"):
        tpu_schedule.read_operations(HLO, tmp_path)
    write_schedule(tmp_path, "mlp.1")
    with pytest.raises(ValueError, match=r"the kernel mlp\.1 does not say how many steps"):
        tpu_schedule.read_operations(HLO.replace('"steps"', '"stairs"'), tmp_path)


def test_parts(tmp_path):
    """Each operation once, in the first part that its source fits."""
    write_schedule(tmp_path, "mlp.1")
    operations = tpu_schedule.read_operations(HLO, tmp_path)
    parts = {"stage 3": r"layers\.2/", "all that has a source": r"jit", "never": r"jit"}
    found = {
        name: [o.name for o in group] for name, group in tpu_schedule.by_part(operations, parts)
    }
    assert found == {
        "stage 3": ["mlp.1", "mlp.2"], "all that has a source": ["f"], "never": [],
        "other": ["c", "s", "h"],
    }  # fmt: skip
