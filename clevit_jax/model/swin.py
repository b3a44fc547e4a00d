"""Swin Transformer, the definition of the model.

Parameter names mirror the official checkpoint (`layers.0.blocks.1.attn.qkv` and so on), with
Flax's words for the leaves: `weight` of a linear layer or convolution is `kernel`, of a norm
`scale`. No state but parameters: drop path takes its random numbers at call time.

Source: Liu et al., Swin Transformer, ICCV 2021; microsoft/Swin-Transformer
`models/swin_transformer.py` (MIT).
"""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from clevit_jax.kernels.arithmetic import LAYER_NORM_EPSILON
from clevit_jax.model import swin_tpu
from clevit_jax.model.attention import relative_position_index, shift_mask, window_attention
from clevit_jax.model.config import MLP_RATIO, PATCH, SwinConfig
from clevit_jax.model.init import Initializer, random_params, truncated_normal
from clevit_jax.model.ops import dot_general, gelu, layer_norm
from clevit_jax.model.scan import FEWEST, scan_blocks

# (name of a layer, its tokens [B, H, W, C]) -> the tokens that the network goes on with.
Tap = Callable[[str, jax.Array], jax.Array]


def _untapped(name: str, x: jax.Array) -> jax.Array:
    return x


def _within(tap: Tap, prefix: str) -> Tap:
    """The tap of a part of the network, which knows its layers by shorter names."""
    return lambda name, x: tap(f"{prefix}.{name}", x)


def _linear(inputs: int, outputs: int, config: SwinConfig, rngs: nnx.Rngs, *, bias: bool = True):
    return nnx.Linear(
        inputs, outputs, use_bias=bias, dtype=config.dtype, param_dtype=jnp.float32,
        kernel_init=truncated_normal(0.02), dot_general=dot_general, rngs=rngs,
    )  # fmt: skip


class LayerNorm(nnx.LayerNorm):
    """LayerNorm over the last axis, computed in float32, returned in `out_dtype`."""

    def __init__(self, channels: int, out_dtype: Any, rngs: nnx.Rngs):
        super().__init__(
            channels,
            epsilon=LAYER_NORM_EPSILON,
            use_fast_variance=False,
            dtype=jnp.float32,
            param_dtype=jnp.float32,
            rngs=rngs,
        )
        self.out_dtype = out_dtype

    def __call__(self, x: jax.Array) -> jax.Array:  # type: ignore[override]
        assert self.scale is not None
        assert self.bias is not None
        return layer_norm(x, self.scale[...], self.bias[...]).astype(self.out_dtype)


class PatchEmbed(nnx.Module):
    """Images [B, S, S, 3] -> tokens [B, S/4, S/4, C]."""

    def __init__(self, config: SwinConfig, rngs: nnx.Rngs):
        self.proj = nnx.Conv(
            3, config.embed_dim, (PATCH, PATCH), strides=PATCH, padding="VALID",
            kernel_init=Initializer(nnx.initializers.variance_scaling(1 / 3, "fan_in", "uniform")),
            dtype=config.dtype, param_dtype=jnp.float32, rngs=rngs,
        )  # fmt: skip
        self.norm = LayerNorm(config.embed_dim, config.dtype, rngs)

    def __call__(self, images: jax.Array) -> jax.Array:
        return self.norm(self.proj(images))


class WindowAttention(nnx.Module):
    """Attention inside windows [B, n, N, C] -> [B, n, N, C]."""

    def __init__(self, channels: int, heads: int, window: int, config: SwinConfig, rngs: nnx.Rngs):
        self.num_heads, self.window = heads, window
        self.relative_position_bias_table = nnx.Param(
            truncated_normal(0.02)(rngs.params(), ((2 * window - 1) ** 2, heads), jnp.float32)
        )
        self.qkv = _linear(channels, 3 * channels, config, rngs)
        self.proj = _linear(channels, channels, config, rngs)

    def __call__(self, x: jax.Array, mask: Any) -> jax.Array:
        x = window_attention(self.qkv(x), self.bias(), num_heads=self.num_heads, mask=mask)
        return self.proj(x)

    def bias(self) -> jax.Array:
        """The relative position bias, float32 [h, N, N]."""
        table = self.relative_position_bias_table[...]
        return table[relative_position_index(self.window)].transpose(2, 0, 1)


class Mlp(nnx.Module):
    """Linear, exact (erf) GELU, linear, on the last axis."""

    def __init__(self, channels: int, config: SwinConfig, rngs: nnx.Rngs):
        self.fc1 = _linear(channels, MLP_RATIO * channels, config, rngs)
        self.fc2 = _linear(MLP_RATIO * channels, channels, config, rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        return self.fc2(gelu(self.fc1(x)))


def drop_path(x: jax.Array, rate: float, noise: jax.Array | None) -> jax.Array:
    """Stochastic depth: zeroes whole samples of a residual branch and scales the rest up.

    Args:
        x: [B, ...], the branch.
        rate: probability of dropping a sample, in [0, 1).
        noise: float32 [B], uniform in [0, 1); None keeps everything.
    """
    return x if noise is None or rate == 0 else _drop(x, rate, 1 / (1 - rate), noise)


def _drop(x: jax.Array, rate: Any, scale: Any, noise: jax.Array) -> jax.Array:
    scale = jnp.where(noise >= rate, scale, 0.0).astype(x.dtype)
    return x * scale.reshape((-1,) + (1,) * (x.ndim - 1))


class Block(nnx.Module):
    """One Swin block on tokens [B, H, W, C]; odd blocks of a stage shift their windows."""

    def __init__(self, config: SwinConfig, stage: int, index: int, rngs: nnx.Rngs):
        channels = config.channels(stage)
        self.window, self.shift = config.window_and_shift(stage, index)
        before = sum(config.depths[:stage]) + index
        self.rate = config.drop_path * before / max(1, sum(config.depths) - 1)
        self.norm1 = LayerNorm(channels, config.dtype, rngs)
        self.attn = WindowAttention(channels, config.num_heads[stage], self.window, config, rngs)
        self.norm2 = LayerNorm(channels, config.dtype, rngs)
        self.mlp = Mlp(channels, config, rngs)

    def __call__(
        self,
        x: jax.Array,
        noise: jax.Array | None = None,
        drop: jax.Array | None = None,
        *,
        tap: Tap = _untapped,
    ) -> jax.Array:
        """Runs the block.

        Args:
            x: tokens [B, H, W, C].
            noise: float32 [B, 2], uniform, for the drop path of the two branches; or None.
            drop: float32 [2], (rate, 1 / (1 - rate)), overriding `self.rate`; for `scan_blocks`.
            tap: called with `norm1`, `attn`, `norm2` and `mlp`, the branches before drop path.

        Returns:
            Tokens [B, H, W, C].
        """
        branch = tap("attn", self.attend(tap("norm1", self.norm1(x))))
        x = x + self._drop_path(branch, noise, 0, drop)
        branch = tap("mlp", self.mlp(tap("norm2", self.norm2(x))))
        return x + self._drop_path(branch, noise, 1, drop)

    def _drop_path(
        self, x: jax.Array, noise: jax.Array | None, branch: int, drop: jax.Array | None
    ) -> jax.Array:
        if noise is None:
            return x
        if drop is None:
            return drop_path(x, self.rate, noise[:, branch])
        return _drop(x, drop[0], drop[1], noise[:, branch])

    def attend(self, x: jax.Array) -> jax.Array:
        """The attention branch, on normalised tokens [B, H, W, C]."""
        grid = (x.shape[1], x.shape[2])
        return self.to_grid(self.attn(self.to_windows(x), self.mask(grid)), grid)

    def mask(self, grid: tuple[int, int]) -> Any:
        """float32 [n, N, N], of a block that shifts its windows, or None."""
        return shift_mask(grid, self.window, self.shift) if self.shift else None

    def to_windows(self, x: jax.Array) -> jax.Array:
        """Tokens [B, H, W, C] -> windows [B, n, N, C], shifted where the block shifts them."""
        batch, height, width, channels = x.shape
        w, shift = self.window, self.shift
        if shift:
            x = jnp.roll(x, (-shift, -shift), axis=(1, 2))
        x = x.reshape(batch, height // w, w, width // w, w, channels).swapaxes(2, 3)
        return x.reshape(batch, -1, w * w, channels)

    def to_grid(self, x: jax.Array, grid: tuple[int, int]) -> jax.Array:
        """The inverse of `to_windows`; `grid` is (H, W)."""
        batch, channels = x.shape[0], x.shape[-1]
        (height, width), w, shift = grid, self.window, self.shift
        x = x.reshape(batch, height // w, width // w, w, w, channels).swapaxes(2, 3)
        x = x.reshape(batch, height, width, channels)
        return jnp.roll(x, (shift, shift), axis=(1, 2)) if shift else x


class PatchMerging(nnx.Module):
    """Tokens [B, H, W, C] -> [B, H/2, W/2, 2C]."""

    def __init__(self, channels: int, config: SwinConfig, rngs: nnx.Rngs):
        self.norm = LayerNorm(4 * channels, config.dtype, rngs)
        self.reduction = _linear(4 * channels, 2 * channels, config, rngs, bias=False)

    def __call__(self, x: jax.Array) -> jax.Array:
        batch, height, width, channels = x.shape
        x = x.reshape(batch, height // 2, 2, width // 2, 2, channels)
        # Neighbours in the official order (row, column): (0,0) (1,0) (0,1) (1,1).
        x = x.transpose(0, 1, 3, 4, 2, 5).reshape(batch, height // 2, width // 2, 4 * channels)
        return self.reduction(self.norm(x))


class Stage(nnx.Module):
    """The blocks of one resolution, then patch merging (None after the last stage)."""

    def __init__(self, config: SwinConfig, stage: int, rngs: nnx.Rngs):
        self.remat = config.remat == "blocks"
        self.blocks = nnx.List(Block(config, stage, i, rngs) for i in range(config.depths[stage]))
        last = stage == len(config.depths) - 1
        self.downsample = None if last else PatchMerging(config.channels(stage), config, rngs)

    def __call__(
        self, x: jax.Array, noise: jax.Array | None, *, scan: bool = False, tap: Tap | None = None
    ) -> jax.Array:
        """Tokens [B, H, W, C] -> [B, H/2, W/2, 2C], or [B, H, W, C] of the last stage.

        `noise`: float32 [B, 2 * blocks of this stage] or None; `scan`, `tap`: see `Swin.__call__`.
        """
        blocks = list(self.blocks)
        if scan and tap is None and len(blocks) >= FEWEST:
            with jax.named_scope("blocks"):
                x = scan_blocks(blocks, x, noise, remat=self.remat)
            blocks = []
        for index, block in enumerate(blocks):
            pair = None if noise is None else noise[:, 2 * index : 2 * index + 2]
            with jax.named_scope("blocks"):
                if tap is not None:
                    name = f"blocks.{index}"
                    x = tap(name, block(x, pair, tap=_within(tap, name)))
                elif self.remat:
                    x = jax.checkpoint(block.__call__)(x, pair)
                else:
                    x = block(x, pair)
        if self.downsample is None:
            return x
        with jax.named_scope("downsample"):
            x = self.downsample(x)
            return x if tap is None else tap("downsample", x)


class Swin(nnx.Module):
    """Swin with a linear head on the mean of the last tokens.

    Differentiable in reverse mode only: matmul, LayerNorm, GELU and attention have custom VJPs
    (`model.ops`), so `jax.grad`, `jax.vjp` and `jax.jacrev` work, also twice; `jax.jvp`,
    `jax.jacfwd` and `jax.hessian` raise TypeError.

    Args:
        config: the architecture.
        rngs: for the initial parameters. The head starts at zeros, as in the official recipe.
    """

    def __init__(self, config: SwinConfig, *, rngs: nnx.Rngs):
        self.config = config
        self.patch_embed = PatchEmbed(config, rngs)
        self.layers = nnx.List(Stage(config, stage, rngs) for stage in range(len(config.depths)))
        self.norm = LayerNorm(config.channels(-1), jnp.float32, rngs)
        self.head = nnx.Linear(
            config.channels(-1),
            config.num_classes,
            kernel_init=nnx.initializers.zeros_init(),
            dtype=jnp.float32,
            param_dtype=jnp.float32,
            precision=jax.lax.Precision.HIGHEST,
            rngs=rngs,
        )

    def __call__(
        self,
        images: jax.Array,
        *,
        drop_path_noise: jax.Array | None = None,
        scan: bool = False,
        tap: Tap | None = None,
    ) -> tuple[jax.Array, jax.Array]:
        """Classifies images.

        Args:
            images: float32 [B, S, S, 3], normalised; S is the config's image size.
            drop_path_noise: float32 [B, config.num_drop_paths], uniform in [0, 1), when
                training; None when not.
            scan: whether long stages are compiled as a scan over pairs of their blocks. Results
                are the same but for rounding. Has no effect where kernels run.
            tap: called as `x = tap(name, x)` with the tokens [B, H, W, C] of every layer that
                `config.layer_shapes` lists, in this order; reads them or replaces them by others
                of their shape and dtype. With a tap neither kernels nor scan nor
                rematerialisation are used: the layers then exist one by one.

        Returns:
            logits float32 [B, K] and features float32 [B, C], the mean over the tokens after
            the last LayerNorm.

        Raises:
            ValueError: images of another shape.
        """
        size = self.config.image_size
        if images.shape[1:] != (size, size, 3):
            raise ValueError(
                f"images have the shape {images.shape}; this Swin takes [B, {size}, {size}, 3]."
            )
        if self.config.kernels is not None and tap is None:
            features = swin_tpu.features(self, images, drop_path_noise)
            return self.head(features), features
        with jax.named_scope("patch_embed"):
            x = self.patch_embed(images)  # [B, S/4, S/4, C]
            x = x if tap is None else tap("patch_embed", x)
        used = 0
        for i, (stage, depth) in enumerate(zip(self.layers, self.config.depths, strict=True)):
            noise = drop_path_noise
            with jax.named_scope(f"layers.{i}"):
                rows = None if noise is None else noise[:, used : used + 2 * depth]
                inner = None if tap is None else _within(tap, f"layers.{i}")
                x = stage(x, rows, scan=scan, tap=inner)
            used += 2 * depth
        x = self.norm(x)  # [B, H, W, C]
        features = (x if tap is None else tap("norm", x)).mean(axis=(1, 2))  # [B, C]
        return self.head(features), features


def abstract_swin(config: SwinConfig) -> tuple[nnx.GraphDef, Any]:
    """The model without its numbers.

    Returns:
        The graph definition and a nested dict of `jax.ShapeDtypeStruct`; `nnx.merge` of the
        first with a dict like the second is the model.
    """
    graphdef, params = _traced_swin(config)
    return graphdef, jax.tree.map(lambda leaf: leaf, params)  # dicts of the caller's own


@functools.lru_cache(maxsize=8)
def _traced_swin(config: SwinConfig) -> tuple[nnx.GraphDef, Any]:
    """`abstract_swin`, cached: a Swin-B takes seconds, and all that reads weights asks for it."""
    model = nnx.eval_shape(lambda: Swin(config, rngs=nnx.Rngs(0)))
    graphdef, params = nnx.split(model, nnx.Param)  # raises if there is any other state
    return graphdef, nnx.to_pure_dict(params)


def init_params(config: SwinConfig, seed: int) -> Any:
    """Random initial parameters, as a nested dict of NumPy float32: see `init.random_params`."""
    return random_params(lambda rngs: Swin(config, rngs=rngs), seed)
