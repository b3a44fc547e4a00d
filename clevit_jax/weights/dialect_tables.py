"""Name tables of the dialects: official name -> what a library calls it."""

from collections.abc import Mapping

DIALECTS = ("microsoft", "timm<0.9", "timm", "huggingface", "torchvision", "openmmlab")


def _table(block: str, inside: Mapping[str, str], outside: Mapping[str, str]) -> dict[str, str]:
    """A dialect: official name -> its name, with `inside` relative to a block.

    {i} is a stage and {j} a block, both from 0; {2i+1} is arithmetic; * is weight or bias.
    """
    official = "layers.{i}.blocks.{j}"
    return {f"{official}.{o}": f"{block}.{n}" for o, n in inside.items()} | dict(outside)


_MICROSOFT_BLOCK = {
    name: name
    for name in (
        "norm1.*",
        "attn.qkv.*",
        "attn.proj.*",
        "attn.relative_position_bias_table",
        "norm2.*",
        "mlp.fc1.*",
        "mlp.fc2.*",
        "attn.relative_position_index",
        "attn_mask",
    )
}
_MICROSOFT = _table(
    "layers.{i}.blocks.{j}",
    _MICROSOFT_BLOCK,
    {
        "patch_embed.proj.*": "patch_embed.proj.*",
        "patch_embed.norm.*": "patch_embed.norm.*",
        "layers.{i}.downsample.norm.*": "layers.{i}.downsample.norm.*",
        "layers.{i}.downsample.reduction.weight": "layers.{i}.downsample.reduction.weight",
        "norm.*": "norm.*",
        "head.*": "head.*",
    },
)

# Since 0.9 timm merges patches at the start of the next stage and stores no buffer.
_TIMM = {o: n for o, n in _MICROSOFT.items() if not o.endswith(("position_index", "attn_mask"))} | {
    "layers.{i}.downsample.norm.*": "layers.{i+1}.downsample.norm.*",
    "layers.{i}.downsample.reduction.weight": "layers.{i+1}.downsample.reduction.weight",
    "head.*": "head.fc.*",
}

# Of the hub's files, of transformers 4, and of what 5 writes with `save_pretrained`. The index is
# a stored buffer of 4, which misses it in a file without; 5 does not store it, and ignores it.
_HUGGINGFACE = _table(
    "swin.encoder.layers.{i}.blocks.{j}",
    {
        "norm1.*": "layernorm_before.*",
        "attn.query.*": "attention.self.query.*",
        "attn.key.*": "attention.self.key.*",
        "attn.value.*": "attention.self.value.*",
        "attn.proj.*": "attention.output.dense.*",
        "attn.relative_position_bias_table": "attention.self.relative_position_bias_table",
        "norm2.*": "layernorm_after.*",
        "mlp.fc1.*": "intermediate.dense.*",
        "mlp.fc2.*": "output.dense.*",
        "attn.relative_position_index": "attention.self.relative_position_index",
    },
    {
        "patch_embed.proj.*": "swin.embeddings.patch_embeddings.projection.*",
        "patch_embed.norm.*": "swin.embeddings.norm.*",
        "layers.{i}.downsample.norm.*": "swin.encoder.layers.{i}.downsample.norm.*",
        "layers.{i}.downsample.reduction.weight": (
            "swin.encoder.layers.{i}.downsample.reduction.weight"
        ),
        "norm.*": "swin.layernorm.*",
        "head.*": "classifier.*",
    },
)

# Of the modules of transformers 5 in memory; differs inside the blocks alone.
HUGGINGFACE_5 = _table(
    "swin.encoder.layers.{i}.blocks.{j}",
    {
        "attn.query.*": "attention.q_proj.*",
        "attn.key.*": "attention.k_proj.*",
        "attn.value.*": "attention.v_proj.*",
        "attn.proj.*": "attention.o_proj.*",
        "attn.relative_position_bias_table": (
            "attention.relative_position_bias.relative_position_bias_table"
        ),
        "mlp.fc1.*": "mlp.fc1.*",
        "mlp.fc2.*": "mlp.fc2.*",
    },
    {},
)

_TORCHVISION = _table(
    "features.{2i+1}.{j}",
    {name: name for name in _MICROSOFT_BLOCK if name != "attn_mask"}  # the index is flat: [N * N]
    | {"mlp.fc1.*": "mlp.0.*", "mlp.fc2.*": "mlp.3.*"},
    {
        "patch_embed.proj.*": "features.0.0.*",
        "patch_embed.norm.*": "features.0.2.*",
        "layers.{i}.downsample.norm.*": "features.{2i+2}.norm.*",
        "layers.{i}.downsample.reduction.weight": "features.{2i+2}.reduction.weight",
        "norm.*": "norm.*",
        "head.*": "head.*",
    },
)

# Of mmpretrain's ImageClassifier; mmdet, mmseg and mmselfsup name the backbone alike. The final
# norm has the number of the last stage besides, and merging another order: see `openmmlab`.
_OPENMMLAB = _table(
    "backbone.stages.{i}.blocks.{j}",
    {
        "norm1.*": "norm1.*",
        "attn.qkv.*": "attn.w_msa.qkv.*",
        "attn.proj.*": "attn.w_msa.proj.*",
        "attn.relative_position_bias_table": "attn.w_msa.relative_position_bias_table",
        "norm2.*": "norm2.*",
        "mlp.fc1.*": "ffn.layers.0.0.*",
        "mlp.fc2.*": "ffn.layers.1.*",
        "attn.relative_position_index": "attn.w_msa.relative_position_index",
    },
    {
        "patch_embed.proj.*": "backbone.patch_embed.projection.*",
        "patch_embed.norm.*": "backbone.patch_embed.norm.*",
        "layers.{i}.downsample.norm.*": "backbone.stages.{i}.downsample.norm.*",
        "layers.{i}.downsample.reduction.weight": (
            "backbone.stages.{i}.downsample.reduction.weight"
        ),
        "norm.*": "backbone.norm.*",
        "head.*": "head.fc.*",
    },
)

TABLES = {
    "microsoft": _MICROSOFT,
    "timm<0.9": _MICROSOFT,
    "timm": _TIMM,
    "huggingface": _HUGGINGFACE,
    "torchvision": _TORCHVISION,
    "openmmlab": _OPENMMLAB,
}
