"""What devices send one another, by hand, from texts as compilers print them."""

# ruff: noqa: E501 - HLO has long lines

import pytest

from clevit_jax.performance.collectives import Traffic, read_network, read_traffic

TPU = """HloModule jit_step, is_scheduled=true

%add (a: f32[], b: f32[]) -> f32[] {
  ROOT %sum = f32[] add(%a, %b)
}

%begin (p: bf16[8,4]) -> bf16[8,16] {
  %g.1 = bf16[8,16]{1,0:T(8,128)(2,1)} all-gather(%p), channel_id=1, replica_groups={{0,1,2,3}}, dimensions={1}, frontend_attributes={chain_id="0"}
}

%between (p: bf16[8,4]) -> bf16[8,16] {
  %g.2 = bf16[8,16]{1,0:T(8,128)(2,1)S(1)} all-gather(%p), channel_id=1, replica_groups={{0,1,2,3}}, dimensions={1}, frontend_attributes={chain_id="0"}
}

%other (p: bf16[8,4]) -> bf16[8,16] {
  %g.3 = bf16[8,16]{1,0:T(8,128)(2,1)} all-gather(%p), channel_id=1, replica_groups={{0,1,2,3}}, dimensions={1}, frontend_attributes={chain_id="1"}
}

%all-reduce-scatter.7 (p: f32[16,4]) -> f32[4,4] {
  %r = f32[16,4]{1,0} all-reduce(%p), channel_id=1, replica_groups={{0,1,2,3}}, to_apply=%add
  ROOT %s = f32[4,4]{1,0} dynamic-slice(%r, %i, %z), dynamic_slice_sizes={4,4}
}

%body (p: f32[8]) -> f32[8] {
  %in.loop = (f32[1,1,128]{2,1,0:T(1,128)}, u32[], token[]) send(%p, %t), channel_id=9, is_host_transfer=true, frontend_attributes={_xla_host_transfer_handler_name="xla_megascale_runtime",_xla_host_transfer_rendezvous="all-to-all.1_0",_xla_megascale_target="{1,2,3,4}x{0:3}",_xla_megascale_transfer_type="ALL_TO_ALL"}
}

ENTRY %main (p: f32[8]) -> f32[8] {
  %f.1 = bf16[8,16]{1,0} fusion(%p), kind=kCustom, calls=%begin
  %f.2 = bf16[8,16]{1,0} fusion(%p), kind=kCustom, calls=%between
  %f.3 = bf16[8,16]{1,0} fusion(%p), kind=kCustom, calls=%other
  %f.4 = f32[4,4]{1,0} fusion(%p), kind=kCustom, calls=%all-reduce-scatter.7
  %a.1 = f32[6]{0} all-reduce(%p), channel_id=1, replica_groups={{0,1,2,3}}, to_apply=%add
  %a.2 = f32[6]{0} all-reduce(%q), channel_id=1, replica_groups={{0,1,2,3}}, to_apply=%add
  %w = f32[8] while(%p), condition=%c, body=%body, backend_config={"known_trip_count":{"n":"5"}}
  %send = (f32[256,8,128]{2,1,0:T(8,128)}, u32[], token[]) send(%b, %t), channel_id=4, is_host_transfer=true, frontend_attributes={_xla_host_transfer_handler_name="xla_megascale_runtime",_xla_host_transfer_rendezvous="all-reduce.2_0",_xla_megascale_reduce_operation="SUM",_xla_megascale_target="{1:4}x{0:3}",_xla_megascale_transfer_type="ALL_REDUCE"}, backend_config={"aggregated_send_recv_config":{"status":"AGGREGATE_STATUS_ISSUE"}}
  %recv = (f32[256,8,128]{2,1,0:T(8,128)}, u32[], token[]) recv(%t), channel_id=3, is_host_transfer=true, frontend_attributes={_xla_host_transfer_handler_name="xla_megascale_runtime",_xla_host_transfer_rendezvous="all-reduce.2_0",_xla_megascale_reduce_operation="SUM",_xla_megascale_target="{1:4}x{0:3}",_xla_megascale_transfer_type="ALL_REDUCE"}
  %sd = token[] send-done(%send), channel_id=4, is_host_transfer=true, frontend_attributes={_xla_host_transfer_handler_name="xla_megascale_runtime"}
  %send.1 = (f32[1,4,16]{2,1,0:T(4,128)}, u32[], token[]) send(%b, %t), channel_id=3, is_host_transfer=true, frontend_attributes={_xla_host_transfer_handler_name="xla_megascale_runtime",_xla_host_transfer_rendezvous="all-gather.25_0",_xla_megascale_target="{1,2}x{0:3}",_xla_megascale_transfer_type="ALL_GATHER"}
  %send.2 = (bf16[4,16]{1,0}, u32[], token[]) send(%b, %t), channel_id=3, is_host_transfer=true, frontend_attributes={_xla_host_transfer_handler_name="xla_megascale_runtime",_xla_host_transfer_rendezvous="reduce-scatter.25_0",_xla_megascale_transfer_type="REDUCE_SCATTER"}
  %send.3 = (bf16[4,16]{1,0}, u32[], token[]) send(%b, %t), channel_id=3, is_host_transfer=true, frontend_attributes={_xla_host_transfer_handler_name="xla_megascale_runtime",_xla_host_transfer_rendezvous="permute.25_0",_xla_megascale_transfer_type="ONE_TO_ONE"}
  %debug = (f32[99]{0}, u32[], token[]) send(%b, %t), channel_id=7, is_host_transfer=true, frontend_attributes={_xla_host_transfer_rendezvous="host_callback"}
}
"""


def test_inside_a_slice():
    """A collective that fusions carry on counts once; those that share a channel count all."""
    found = read_traffic(TPU, devices=4)
    assert found["all-gather"] == Traffic(2, 2 * 256, 2 * 256 * 3 / 4)
    assert found["all-reduce"] == Traffic(2, 2 * 24, 2 * 24 * 2 * 3 / 4)
    assert found["reduce-scatter"] == Traffic(1, 256, 256 * 3 / 4)
    assert set(found) == {"all-gather", "all-reduce", "reduce-scatter"}


def test_from_slice_to_slice():
    """XProf's rules; by the slices that a transfer names, or else all six."""
    found = read_network(TPU, slices=6)
    assert found["all-reduce"] == Traffic(1, 2**20, 2**20 * 2 * 3 / 4)
    assert found["all-gather"] == Traffic(1, 2 * 256, 256)
    assert found["reduce-scatter"] == Traffic(1, 128, pytest.approx(128 * 5 / 6))
    assert found["all-to-all"] == Traffic(5, 5 * 512, 5 * 512 * 3 / 4)
    assert found["one-to-one"] == Traffic(1, 128, 128)
    assert len(found) == 5
    assert read_network(TPU.replace("megascale", "other"), slices=6) == {}
