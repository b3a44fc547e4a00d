"""Window attention on tokens [H, W, B, C]: a kernel for it, and one for its gradient.

A step has one window of some images and as many heads as fill 128 lanes. Its block, tokens x images
x 128, is transposed in VMEM, so that an image's tokens are contiguous: it is written there in
float32 and read with a stride.

Heads share the lanes, so a matmul over all lanes would mix them. The queries are therefore laid
out once per head, with 0 in the lanes of the others: one matmul gives the scores of all heads, with
keys down and (head, query) across. Maximum and sum of the softmax then run down columns, each
within one head of one image: heads whose scores lie far apart cannot harm each other. Bias and
shift mask are added beforehand, for four kinds of windows: inside, at the right edge, at the lower
edge, at both.

The gradient's kernel computes the softmax again, and sums the bias's gradient over the windows.
"""

import dataclasses
import functools
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu

from clevit_jax.kernels.arithmetic import (
    LANES,
    MASKED_LOGIT,
    SUBLANES,
    matmul,
    matmul_nt,
    matmul_tn,
)
from clevit_jax.kernels.rows import Grid, token_shape

LOG2_E = 1 / math.log(2)  # scores are in units of ln 2, since 2**x is what the chip computes
_NEVER = -1e30  # score of a row that pads the keys
_TOGETHER = {"forward": 12, "backward": 8}  # images in flight, of windows of up to 64 tokens


@dataclasses.dataclass(frozen=True)
class Heads:
    """How heads and windows fill registers.

    Attributes:
        heads: of the block; its channels are heads * width.
        width: channels per head; divides 128.
        window: tokens per side of a window.
    """

    heads: int
    width: int
    window: int

    @property
    def together(self) -> int:
        """Heads per step."""
        return LANES // self.width

    @property
    def groups(self) -> int:
        """Steps that all heads take; in the last one, some heads may be zeros."""
        return -(-self.heads // self.together)

    @property
    def channels(self) -> int:
        """Channels of queries (and of keys, and of values), filled up with heads of zeros."""
        return self.groups * LANES

    @property
    def tokens(self) -> int:
        """Tokens per window."""
        return self.window**2

    @property
    def keys(self) -> int:
        """Rows of the scores: tokens in whole registers."""
        return -(-self.tokens // SUBLANES) * SUBLANES

    @property
    def queries(self) -> int:
        """Columns of the scores per head: tokens in whole registers of 16 bits."""
        return -(-self.tokens // (2 * SUBLANES)) * 2 * SUBLANES

    def mask(self, head: int) -> jax.Array:
        """Which of 128 lanes belong to a head, bool [1, 128]."""
        lane = jax.lax.broadcasted_iota(jnp.int32, (1, LANES), 1)
        return (lane >= head * self.width) & (lane < (head + 1) * self.width)

    def spread(self, x: jax.Array, dtype: Any) -> jax.Array:
        """float32 [queries, 128] -> [together * queries, 128], each head in its own lanes."""
        if dtype == jnp.float32:
            return jnp.concatenate([jnp.where(self.mask(h), x, 0) for h in range(self.together)])
        pairs = pltpu.bitcast(x.astype(dtype), jnp.uint32)  # two rows a word
        zero = jnp.uint32(0)
        parts = [jnp.where(self.mask(h), pairs, zero) for h in range(self.together)]
        return pltpu.bitcast(jnp.concatenate(parts), dtype)

    def collect(self, x: jax.Array) -> jax.Array:
        """float32 [together * queries, 128] -> [keys, 128]: of each head its own lanes."""
        parts = [
            jnp.where(self.mask(h), x[h * self.queries :][: self.keys], 0)
            for h in range(self.together)
        ]
        return sum(parts[1:], parts[0])


def relative_bias(table: jax.Array, window: int) -> jax.Array:
    """The relative position bias, by matmuls with ones and zeros instead of a gather.

    A TPU gathers, and sums the gradient, row by row: 2401 of them for a window of 7.

    Args:
        table: float32 [(2 window - 1)**2, h], by row and column of the query less the key's.
        window: tokens per side.

    Returns:
        float32 [h, N, N], (head, query, key).
    """
    side = np.arange(window)
    apart = side[:, None] - side[None, :] + window - 1  # of query and key along one axis
    ones = (apart[..., None] == np.arange(2 * window - 1)).astype(np.float32)
    exact = jax.lax.Precision.HIGHEST
    square = table.reshape(2 * window - 1, 2 * window - 1, -1)
    rows = jnp.einsum("ijr,rch->ijch", ones, square, precision=exact)
    bias = jnp.einsum("klc,ijch->hikjl", ones, rows, precision=exact)
    return bias.reshape(-1, window**2, window**2)


def pack_bias(bias: jax.Array, heads: Heads, shift: int) -> jax.Array:
    """Bias and mask, as they are added to the scores of a group of heads and kind of window.

    Args:
        bias: float32 [h, N, N], (head, query, key).
        heads: the sizes.
        shift: of the windows, in tokens; 0 makes one kind, anything else four.

    Returns:
        float32 [groups * kinds, keys, together * queries], in units of ln 2.
    """
    masks = jnp.asarray(kind_masks(heads.window, shift))  # [kinds, N, N]
    full = (bias[None] + masks[:, None]) * LOG2_E  # [kinds, h, N, N]
    spare, extra = heads.groups * heads.together - heads.heads, heads.queries - heads.tokens
    full = jnp.pad(full, ((0, 0), (0, spare), (0, extra), (0, 0)))
    rows = heads.keys - heads.tokens
    full = jnp.pad(full, ((0, 0), (0, 0), (0, 0), (0, rows)), constant_values=_NEVER)
    full = full.reshape(-1, heads.groups, heads.together, heads.queries, heads.keys)
    full = full.transpose(1, 0, 4, 2, 3)  # [groups, kinds, keys, together, queries]
    return full.reshape(-1, heads.keys, heads.together * heads.queries)


def unpack_bias_gradient(packed: jax.Array, heads: Heads) -> jax.Array:
    """The inverse of `pack_bias`, for a gradient summed over kinds of windows.

    float32 [groups, keys, together * queries] -> [h, N, N].
    """
    grad = packed.reshape(heads.groups, heads.keys, heads.together, heads.queries)
    grad = grad.transpose(0, 2, 3, 1).reshape(-1, heads.queries, heads.keys)
    return grad[: heads.heads, : heads.tokens, : heads.tokens]


@functools.cache
def kind_masks(window: int, shift: int) -> np.ndarray:
    """Masks float32 [4, N, N] of 0 or -100, of windows inside, at the right or lower edge, at both.

    After the roll, the last `shift` rows of the lowest windows come from the top of the image, and
    the last columns of the rightmost ones from its left. Without shift, [1, N, N] of zeros.
    """
    if not shift:
        return np.zeros((1, window**2, window**2), np.float32)
    across = np.arange(window) >= window - shift
    masks = []
    for low in (False, True):
        for right in (False, True):
            region = 2 * (across & low)[:, None] + (across & right)[None, :]
            region = region.reshape(-1)
            different = region[:, None] != region[None, :]
            masks.append(np.where(different, np.float32(MASKED_LOGIT), np.float32(0)))
    return np.stack(masks)


def _softmax(scores: list[jax.Array]) -> list[jax.Array]:
    powers = [jnp.exp2(s - s.max(0, keepdims=True)) for s in scores]
    return [p * (1 / p.sum(0, keepdims=True)) for p in powers]


# Everything is written stage by stage over several images, so that the scheduler finds
# independent work while a matmul or a maximum of one image is under way.


def _forward(q_ref, k_ref, v_ref, bias_ref, out_ref, q_s, k_s, v_s, out_s, *, heads, images):
    _to_scratch((q_ref, k_ref, v_ref), (q_s, k_s, v_s), heads, images)
    dtype = out_ref.dtype

    def body(which: list[Any]) -> None:
        read = functools.partial(_read_image, images=images)
        q = [heads.spread(read(q_s, i, heads.queries), dtype) for i in which]
        k = [read(k_s, i, heads.keys).astype(dtype) for i in which]
        v = [read(v_s, i, heads.keys).astype(dtype) for i in which]
        scores = [matmul_nt(a, b) + bias_ref[0] for a, b in zip(k, q, strict=True)]
        weights = [p.astype(dtype) for p in _softmax(scores)]
        outs = [heads.collect(matmul_tn(a, b)) for a, b in zip(weights, v, strict=True)]
        for i, out in zip(which, outs, strict=True):
            _write_image(out_s, i, out, images)

    _for_images(images, _together(heads, images, "forward"), body)
    _from_scratch((out_s,), (out_ref,), heads, images)


def _backward(
    q_ref, k_ref, v_ref, dout_ref, bias_ref, dq_ref, dk_ref, dv_ref, dbias_ref,
    q_s, k_s, v_s, dout_s, dq_s, dk_s, dv_s, *, heads, images,
):  # fmt: skip
    first = functools.reduce(lambda a, b: a & b, (pl.program_id(i) == 0 for i in (1, 2, 3)))

    @pl.when(first)
    def _() -> None:
        dbias_ref[...] = jnp.zeros_like(dbias_ref)

    _to_scratch((q_ref, k_ref, v_ref, dout_ref), (q_s, k_s, v_s, dout_s), heads, images)
    dtype = dq_ref.dtype

    def body(which: list[Any]) -> None:
        read = functools.partial(_read_image, images=images)
        q = [heads.spread(read(q_s, i, heads.queries), dtype) for i in which]
        dout = [heads.spread(read(dout_s, i, heads.queries), dtype) for i in which]
        k = [read(k_s, i, heads.keys).astype(dtype) for i in which]
        v = [read(v_s, i, heads.keys).astype(dtype) for i in which]
        scores = [matmul_nt(a, b) + bias_ref[0] for a, b in zip(k, q, strict=True)]
        dweights = [matmul_nt(a, b) for a, b in zip(v, dout, strict=True)]
        weights = _softmax(scores)
        both = [a * b for a, b in zip(weights, dweights, strict=True)]
        dscores = [a - b * a.sum(0, keepdims=True) for a, b in zip(both, weights, strict=True)]
        narrow = [s.astype(dtype) for s in dscores]
        dv = [matmul(a.astype(dtype), b) for a, b in zip(weights, dout, strict=True)]
        dk = [matmul(a, b) for a, b in zip(narrow, q, strict=True)]
        dq = [heads.collect(matmul_tn(a, b)) for a, b in zip(narrow, k, strict=True)]
        for n, i in enumerate(which):
            _write_image(dq_s, i, dq[n] / LOG2_E, images)
            _write_image(dk_s, i, dk[n] / LOG2_E, images)
            _write_image(dv_s, i, dv[n], images)
        dbias_ref[0] += sum(dscores[1:], dscores[0])

    _for_images(images, _together(heads, images, "backward"), body)
    _from_scratch((dq_s, dk_s, dv_s), (dq_ref, dk_ref, dv_ref), heads, images)


def _together(heads: Heads, images: int, direction: str) -> int:
    """Images in flight: at most `_TOGETHER`, fewer for large windows; divides `images`."""
    most = max(1, _TOGETHER[direction] * 64**2 // max(heads.queries, 64) ** 2)
    return max(n for n in range(1, most + 1) if images % n == 0)


def _for_images(images: int, together: int, body: Callable[[list[Any]], None]) -> None:
    jax.lax.fori_loop(
        0, images // together, lambda i, _: body([i * together + n for n in range(together)]), None
    )


def _to_scratch(
    blocks: tuple[Any, ...], scratch: tuple[Any, ...], heads: Heads, images: int
) -> None:
    """Copies blocks [w, w, images, 128] to float32 [tokens * images, 128], then rows of 0."""
    rows = heads.tokens * images

    @pl.when(functools.reduce(lambda a, b: a & b, (pl.program_id(i) == 0 for i in range(4))))
    def _() -> None:
        for ref in scratch:
            if ref.shape[0] > rows:
                ref[rows:] = jnp.zeros((ref.shape[0] - rows, LANES), jnp.float32)

    for block, ref in zip(blocks, scratch, strict=True):
        ref[:rows] = block[...].astype(jnp.float32).reshape(rows, LANES)


def _from_scratch(
    scratch: tuple[Any, ...], blocks: tuple[Any, ...], heads: Heads, images: int
) -> None:
    """The inverse of `_to_scratch`, without the rows of 0; rounds to the dtype of the blocks."""
    for ref, block in zip(scratch, blocks, strict=True):
        value = ref[: heads.tokens * images].reshape(block.shape)
        block[...] = value.astype(block.dtype)


def _read_image(ref: Any, image: Any, rows: int, *, images: int) -> jax.Array:
    """The tokens of one image in scratch, float32 [rows, 128]."""
    return ref[pl.ds(image, rows, stride=images), :]


def _write_image(ref: Any, image: Any, value: jax.Array, images: int) -> None:
    ref[pl.ds(image, value.shape[0], stride=images), :] = value


def _call_over_windows(
    kernel: Any, name: str, qkv: jax.Array, bias: jax.Array, dout: jax.Array | None,
    *, grid: Grid, heads: Heads,
) -> list[jax.Array]:  # fmt: skip
    """Runs a kernel over all windows: forward without `dout`, backward with it."""
    images = images_per_step(grid, heads)
    down, across = grid.height // heads.window, grid.width // heads.window
    steps = (heads.groups, down, across, grid.batch // images)
    kinds = bias.shape[0] // heads.groups
    forward = dout is None

    def tokens(which: int = 0) -> pl.BlockSpec:
        shape = (heads.window, heads.window, images, LANES)
        return pl.BlockSpec(shape, lambda g, i, j, b: (i, j, b, which * heads.groups + g))

    def bias_of(g: Any, i: Any, j: Any, b: Any) -> tuple[Any, ...]:
        low, right = (i == down - 1).astype(jnp.int32), (j == across - 1).astype(jnp.int32)
        return (g * kinds + (2 * low + right if kinds > 1 else 0), 0, 0)

    packed = (1, heads.keys, heads.together * heads.queries)
    shape = token_shape(grid, heads.channels, qkv.dtype)
    in_specs, out_specs = [tokens(0), tokens(1), tokens(2)], [tokens()]
    arrays = [qkv, qkv, qkv]
    results: list[Any] = [shape]
    scratch = [heads.queries] * 3 + [heads.keys]
    if dout is not None:
        in_specs.append(tokens())
        arrays.append(dout)
        out_specs = [tokens(), tokens(), tokens(), pl.BlockSpec(packed, lambda g, *_: (g, 0, 0))]
        dbias = jax.ShapeDtypeStruct((heads.groups, *packed[1:]), jnp.float32)
        results = [shape, shape, shape, dbias]
        scratch = [heads.queries] * 4 + [heads.keys] * 3
    pairs = grid.height * grid.width * grid.batch * heads.tokens
    return pl.pallas_call(
        functools.partial(kernel, heads=heads, images=images),
        grid=steps,
        in_specs=[*in_specs, pl.BlockSpec(packed, bias_of)],
        out_specs=out_specs,
        out_shape=results,
        scratch_shapes=[pltpu.VMEM((rows * images, LANES), jnp.float32) for rows in scratch],
        name=name,
        interpret=grid.interpret,
        metadata={"steps": str(math.prod(steps))},
        cost_estimate=pl.CostEstimate(
            flops=2 * (2 if forward else 5) * pairs * heads.channels,
            bytes_accessed=sum(
                math.prod(a.shape) * a.dtype.itemsize for a in (qkv, *arrays[3:], *results)
            ),
            transcendentals=pairs * heads.groups * heads.together,
        ),
        compiler_params=pltpu.CompilerParams(
            dimension_semantics=("arbitrary",) * 4, vmem_limit_bytes=grid.vmem
        ),
    )(*arrays, bias)


def images_per_step(grid: Grid, heads: Heads) -> int:
    """Images per step: as many as `grid` says, or fewer for large windows and little VMEM."""
    most = max(SUBLANES, grid.images * 64 // max(heads.queries, 64))
    sizes = [n for n in range(SUBLANES, most + 1, SUBLANES) if grid.batch % n == 0]
    fit = [n for n in sizes if vmem_bytes(heads, grid, images=n) <= grid.vmem]
    return max(fit, default=SUBLANES)


def vmem_bytes(heads: Heads, grid: Grid, *, images: int = SUBLANES) -> int:
    """VMEM that the gradient takes, in bytes; the forward pass takes less."""
    blocks = 7 * heads.tokens * grid.itemsize * 2  # in two buffers
    scratch = (4 * heads.queries + 3 * heads.keys) * 4
    scores = heads.keys * heads.together * heads.queries * 4
    # The bias and its gradient in two buffers; what spills from registers (libtpu 0.0.42.1).
    values = (4 + 8 + 2 * _together(heads, images, "backward")) * scores
    return (blocks + scratch) * images * LANES + values


def attend(qkv: jax.Array, bias: jax.Array, *, grid: Grid, heads: Heads) -> jax.Array:
    """softmax(q k^T + bias + mask) v inside the windows of the (rolled) grid.

    Args:
        qkv: [H, W, B, 3 channels], queries (scaled, in units of ln 2), keys, values.
        bias: float32, of `pack_bias`.
        grid: the tokens; without a roll there is one kind of windows, else four.
        heads: the sizes.

    Returns:
        [H, W, B, channels] in the dtype of `qkv`.
    """
    return _call_over_windows(
        _forward, "attention_forward", qkv, bias, None, grid=grid, heads=heads
    )[0]


def attend_gradient(
    qkv: jax.Array, bias: jax.Array, dout: jax.Array, *, grid: Grid, heads: Heads
) -> list[jax.Array]:
    """Gradients of `attend`: of queries, keys and values, each like `dout`, and of the bias.

    The last is float32 [groups, keys, together * queries], see `unpack_bias_gradient`, with respect
    to the bias in natural units.
    """
    return _call_over_windows(
        _backward, "attention_backward", qkv, bias, dout, grid=grid, heads=heads
    )
