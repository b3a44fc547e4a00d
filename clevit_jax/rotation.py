"""Nearest-neighbour picks of a rotation: as a gather, and as a Pallas kernel for TPUs.

Output pixel (row, column) comes from the source pixel whose coordinates are two affine functions of
(row, column) in 16.16 fixed point, as in Pillow's `Image.rotate`: `Picks`. Both forms copy the same
pixels, bit by bit.

A TPU gathers a pixel at a time from its main memory, but within 128 lanes of a register at once.
So the kernel picks in two passes along lanes. With r the source row and x the output column, the
first makes tables T_k[r, x] = S[r, e(r, x) + k], k = 0 and 1; the second, on the tables transposed,
out[row, x] = T_k[r, x] for the r and k of the pixel. Rows that share r and x differ by less than a
column in what they pick, and e is rounded so that two tables hold them all.
"""

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu
from jax.sharding import Mesh

LANES, SUBLANES = 128, 8
ONE = 65536  # in 16.16 fixed point
STEEPEST = 40.0  # degrees that the kernel turns by: its two tables would do up to 45


@dataclasses.dataclass(frozen=True)
class RotationKernel:
    """Where and how the kernel runs.

    Attributes:
        mesh: the devices that images are divided over, along all its axes; None for one device.
        interpret: run it step by step, on any device; for tests.
    """

    mesh: Mesh | None = None
    interpret: bool = False


def _fixed(value: jax.Array) -> jax.Array:
    return jnp.floor(value * ONE + 0.5).astype(jnp.int32)


def picks(
    angle: jax.Array | float, flipped: jax.Array | bool, *, shape: tuple[int, int]
) -> jax.Array:
    """Where the pixels of an image come from that is turned, and then perhaps flipped.

    Args:
        angle: degrees counter-clockwise about the centre.
        flipped: whether left and right are exchanged after turning.
        shape: height and width of the image.

    Returns:
        int32 [6], in 16.16 fixed point: source row at output pixel (0, 0), its change a column and
        a row; source column at (0, 0), its change a column and a row. Integers pick the same pixel
        on every device and in every batch, where floats would part at ties.
    """
    height, width = shape
    radians = jnp.deg2rad(jnp.asarray(angle, jnp.float32))
    cos, sin = jnp.cos(radians), jnp.sin(radians)
    # Where the centre of output pixel (0, 0) comes from; the centre of the image stays put.
    up, left = 0.5 - height / 2, 0.5 - width / 2
    top = _fixed(sin * left + cos * up + height / 2)
    start = _fixed(cos * left - sin * up + width / 2)
    cos, sin = _fixed(cos), _fixed(sin)
    last = jnp.where(flipped, width - 1, 0)
    sign = jnp.where(flipped, -1, 1)
    return jnp.stack([top + sin * last, sign * sin, cos, start + cos * last, sign * cos, -sin])


def gather(image: jax.Array, picks: jax.Array) -> jax.Array:
    """The pixels of an image [H, W, C] that `picks` names; 0 where there is none."""
    height, width, channels = image.shape
    row = jnp.arange(height, dtype=jnp.int32)[:, None]  # [H, 1]
    column = jnp.arange(width, dtype=jnp.int32)[None, :]  # [1, W]
    y = (picks[0] + picks[1] * column + picks[2] * row) >> 16  # [H, W]
    x = (picks[3] + picks[4] * column + picks[5] * row) >> 16  # [H, W]
    inside = (y >= 0) & (y < height) & (x >= 0) & (x < width)
    pixel = jnp.where(inside, y * width + x, 0)
    turned = image.reshape(height * width, channels)[pixel]  # [H, W, C]
    return jnp.where(inside[..., None], turned, jnp.zeros((), image.dtype))


def _table(picks: jax.Array) -> jax.Array:
    """e(r, x) as int32 [3] in 16.16 fixed point: at (0, 0), its change a column and a row.

    It lies half a column below what the middle of source row r picks at column x. What a pixel of
    that row picks is less than half a column from there, so e or e + 1.
    """
    y0, yx, yy, x0, xx, xy = picks.astype(jnp.float32)
    slope = xy / yy
    middle = x0 - slope * (y0 - ONE / 2) - ONE / 2
    return jnp.round(jnp.stack([middle, xx - slope * yx, slope * ONE])).astype(jnp.int32)


def _affine(at: list, row: Any, column: Any) -> Any:
    """Value of an affine function [at (0, 0), change a column, change a row]."""
    return (at[0] + at[1] * column + at[2] * row) >> 16


def _first_tile(at: list, row: Any, column: Any, *, tiles: int, lanes: int) -> Any:
    """First tile of 128 lanes that holds a value of the function in 8 x 128 pixels.

    `lanes` says which of the changes is along lanes: 1 the column's, 2 the row's.
    """
    low = at[0] + at[1] * column + at[2] * row
    low += jnp.minimum(0, (LANES - 1) * at[lanes]) + jnp.minimum(0, (SUBLANES - 1) * at[3 - lanes])
    return jnp.clip(low >> 23, 0, tiles - 1)


def _pick_lanes(load: Any, first: Any, lane: jax.Array, *, tiles: int) -> jax.Array:
    """Element `lane` [8, 128] of rows of which `load(tile)` is 128 lanes: three tiles hold all."""
    inner, tile = lane & (LANES - 1), lane >> 7

    def found(i: int) -> jax.Array:
        rows = load(jnp.minimum(first + i, tiles - 1))
        return jnp.take_along_axis(rows, inner, axis=1, mode="promise_in_bounds")

    picked = found(0)
    for i in range(1, min(3, tiles)):
        picked = jnp.where(tile == first + i, found(i), picked)
    return picked


def _kernel(picks_ref, source, out, tables, turned, *, size: int, channels: int) -> None:
    """One image: source [C, R, P], out [C, P, P], tables and turned [2 C, P, P]."""
    side = source.shape[-1]
    tiles = side // LANES
    number = pl.program_id(0)
    at = [picks_ref[number, i] for i in range(9)]
    y_at, x_at, e_at = at[:3], at[3:6], at[6:]
    sublane = jax.lax.broadcasted_iota(jnp.int32, (SUBLANES, LANES), 0)
    lane = jax.lax.broadcasted_iota(jnp.int32, (SUBLANES, LANES), 1)
    groups = -(-size // SUBLANES)

    def rows_of(ref, channel, start, tile):
        tile = pl.ds(pl.multiple_of(tile * LANES, LANES), LANES)
        return ref[channel, pl.ds(start, SUBLANES), tile]

    def first_pass(group, _):
        start = pl.multiple_of(group * SUBLANES, SUBLANES)
        for block in range(tiles):
            column = block * LANES
            first = _first_tile(e_at, start, column, tiles=tiles, lanes=1)
            e = _affine(e_at, start + sublane, column + lane)
            for k in range(2):
                lanes = jnp.clip(e + k, 0, side - 1)
                for channel in range(channels):
                    load = functools.partial(rows_of, source, channel, start)
                    found = _pick_lanes(load, first, lanes, tiles=tiles)
                    to = (pl.ds(start, SUBLANES), pl.ds(column, LANES))
                    tables[2 * channel + k, *to] = found
        return 0

    def second_pass(group, _):
        start = pl.multiple_of(group * SUBLANES, SUBLANES)
        for block in range(tiles):
            row, column = block * LANES + lane, start + sublane
            first = _first_tile(y_at, block * LANES, start, tiles=tiles, lanes=2)
            y, x = _affine(y_at, row, column), _affine(x_at, row, column)
            inside = (y >= 0) & (y < size) & (x >= 0) & (x < size)
            second = x > _affine(e_at, y, column)
            lanes = jnp.clip(y, 0, side - 1)
            for channel in range(channels):
                both = [
                    _pick_lanes(
                        functools.partial(rows_of, turned, 2 * channel + k, start),
                        first, lanes, tiles=tiles,
                    )
                    for k in range(2)
                ]  # fmt: skip
                found = jnp.where(inside, jnp.where(second, both[1], both[0]), 0.0)
                tables[channel, pl.ds(start, SUBLANES), pl.ds(block * LANES, LANES)] = found
        return 0

    def transpose(origin, target, count):
        def panel(i, _):
            rows = pl.ds(pl.multiple_of(i * LANES, LANES), LANES)
            for j in range(tiles):
                columns = pl.ds(j * LANES, LANES)
                for n in range(count):
                    target[n, columns, rows] = origin[n, rows, columns].T
            return 0

        jax.lax.fori_loop(0, tiles, panel, 0)

    jax.lax.fori_loop(0, groups, first_pass, 0)
    transpose(tables, turned, 2 * channels)
    jax.lax.fori_loop(0, groups, second_pass, 0)
    transpose(tables, out, channels)


def padded(size: int) -> tuple[int, int]:
    """Rows and columns, R and P, of the planes of an image of `size` pixels a side: whole tiles."""
    return -(-size // SUBLANES) * SUBLANES, -(-size // LANES) * LANES


def _memory(size: int, channels: int = 3) -> int:
    """Bytes of a chip's own memory that the kernel may use."""
    return 13 * channels * padded(size)[1] ** 2 * 4


def fits(size: int, *, degrees: float, vmem: int) -> bool:
    """Whether the kernel can turn images of `size` pixels a side by as much as `degrees`.

    `vmem` is the bytes of a chip's own memory.
    """
    return degrees <= STEEPEST and _memory(size) <= vmem


def kernel(planes: jax.Array, picks: jax.Array, *, size: int, interpret: bool) -> jax.Array:
    """What `gather` makes, of square images that lie in planes; on TPUs.

    Args:
        planes: float32 [N, C, R, P], R and P as `padded` says; what lies beyond `size` is finite.
        picks: int32 [N, 6], of `picks` for angles of at most `STEEPEST` degrees.
        size: pixels a side of an image.
        interpret: see `RotationKernel`.

    Returns:
        float32 [N, C, P, P]; what lies beyond `size` is of no use.
    """
    number, channels, height, side = planes.shape
    at = jnp.concatenate([picks, jax.vmap(_table)(picks)], axis=1)  # [N, 9]
    source, target = (
        pl.BlockSpec((None, channels, rows, side), lambda n: (n, 0, 0, 0))
        for rows in (height, side)
    )
    scratch = pltpu.VMEM((2 * channels, side, side), jnp.float32)
    return pl.pallas_call(
        functools.partial(_kernel, size=size, channels=channels),
        grid=(number,),
        in_specs=[pl.BlockSpec(memory_space=pltpu.SMEM), source],
        out_specs=target,
        out_shape=jax.ShapeDtypeStruct((number, channels, side, side), planes.dtype),
        scratch_shapes=[scratch, scratch],
        name="rotation",
        interpret=interpret,
        metadata={"steps": str(number)},
        cost_estimate=pl.CostEstimate(
            flops=100 * planes.size, bytes_accessed=2 * planes.nbytes, transcendentals=0
        ),
        compiler_params=pltpu.CompilerParams(
            dimension_semantics=("arbitrary",), vmem_limit_bytes=_memory(size, channels)
        ),
    )(at, planes)
