"""Pallas kernel for TPUs that rotates planes of uint8 pixels by two shears of whole rows."""

import dataclasses
import functools
import math
from typing import Any

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu

from clevit_jax.kernels.arithmetic import LANES, SUBLANES

ONE = 65536  # in 16.16 fixed point

MOST_PARTS = 4  # a side: each needs a bit of code of its own

STEEPEST = 40.0  # degrees that the kernel turns by: its two tables would do up to 45


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


@dataclasses.dataclass(frozen=True)
class _Shape:
    """What is fixed of a call of the kernel: see `kernel`."""

    size: int
    parts: int
    mean: tuple[float, ...]
    deviation: tuple[float, ...]


def _kernel(numbers, source, out, tables, turned, *, shape: _Shape) -> None:
    """One image: source [C, R, P], out [C, S, S], tables and turned [2 C, P, P]."""
    height = source.shape[1]
    image = pl.program_id(0)

    def in_pairs(step: Any) -> None:  # two at once keep the units for lanes busy
        def pair(i: jax.Array, _: int) -> int:
            for half in range(2):
                step(pl.multiple_of((2 * i + half) * SUBLANES, SUBLANES))
            return 0

        jax.lax.fori_loop(0, height // (2 * SUBLANES), pair, 0)

    at = [numbers[image, i] for i in range(13)]
    in_pairs(functools.partial(_first_pass, source, tables, at[6:9]))
    _transpose(tables, turned)
    move = functools.partial(_move, numbers, image, shape)
    in_pairs(functools.partial(_second_pass, turned, tables, at, move, shape))
    _transpose(tables, out)


def _transpose(origin: Any, target: Any) -> None:
    """Target [C, H, W] out of the first channels and the corner [W, H] of the origin."""
    channels, height, width = target.shape

    def panel(start: Any, columns: int) -> None:
        for top in range(0, height, LANES):
            rows = min(LANES, height - top)
            for n in range(channels):
                block = origin[n, pl.ds(start, LANES), pl.ds(top, LANES)].T
                target[n, pl.ds(top, rows), pl.ds(start, columns)] = block[:rows, :columns]

    def whole(i: jax.Array, _: int) -> int:
        panel(pl.multiple_of(i * LANES, LANES), LANES)
        return 0

    if width >= LANES:
        jax.lax.fori_loop(0, width // LANES, whole, 0)
    if width % LANES:
        panel(width // LANES * LANES, width % LANES)


def _iotas() -> tuple[jax.Array, jax.Array]:
    """Sublanes and lanes of a register, int32 [8, 128]."""
    sublane, lane = (
        jax.lax.broadcasted_iota(jnp.int32, (SUBLANES, LANES), axis) for axis in range(2)
    )
    return sublane, lane


def _load(ref: Any, channel: int, start: Any, tile: Any) -> jax.Array:
    lanes = pl.ds(pl.multiple_of(tile * LANES, LANES), LANES)
    return ref[channel, pl.ds(start, SUBLANES), lanes]


def _first_pass(source: Any, tables: Any, e_at: list, start: Any) -> None:
    """Both tables of eight source rows, of every channel."""
    channels, _, side = source.shape
    tiles = side // LANES
    sublane, lane = _iotas()
    for column in range(0, side, LANES):
        first = _first_tile(e_at, start, column, tiles=tiles, lanes=1)
        e = _affine(e_at, start + sublane, column + lane)
        for k in range(2):
            lanes = jnp.clip(e + k, 0, side - 1)
            for channel in range(channels):
                load = functools.partial(_load, source, channel, start)
                found = _pick_lanes(load, first, lanes, tiles=tiles)
                tables[2 * channel + k, pl.ds(start, SUBLANES), pl.ds(column, LANES)] = found


def _move(numbers: Any, image: Any, shape: _Shape, start: Any, part: int) -> tuple[Any, Any]:
    """Rows and columns to what comes to part row `part` and to the columns from `start` on."""
    column = jnp.minimum(jax.lax.div(start, shape.size // shape.parts), shape.parts - 1)
    place = 13 + 2 * (part * shape.parts + column)
    return numbers[image, place], numbers[image, place + 1]


def _second_pass(
    turned: Any, tables: Any, at: list, move: Any, shape: _Shape, start: Any
) -> None:  # fmt: skip
    """Eight columns of the result, [8, P] a channel."""
    tall = shape.size // shape.parts
    _, lane = _iotas()
    for row in range(0, turned.shape[-1], LANES):
        to = (pl.ds(start, SUBLANES), pl.ds(row, LANES))
        for part in range(row // tall, min(shape.parts, -(-(row + LANES) // tall))):
            down, right = move(start, part)
            begin = pl.multiple_of(start + right, SUBLANES)
            found = _finished(turned, at, shape, row + down, begin)
            for channel, new in enumerate(found):
                if part * tall > row:  # the part above has the first lanes
                    new = jnp.where(row + lane >= part * tall, new, tables[channel, *to])
                tables[channel, *to] = new


def _finished(turned: Any, at: list, shape: _Shape, top: Any, left: Any) -> list[jax.Array]:
    """Turned, normalised and erased: the columns from `left` on, the rows from `top` on, [8, 128].

    One array a channel.
    """
    y_at, x_at, e_at, box = at[:3], at[3:6], at[6:9], at[9:]
    sublane, lane = _iotas()
    side = turned.shape[-1]
    tiles = side // LANES
    row, column = top + lane, left + sublane
    first = _first_tile(y_at, top, left, tiles=tiles, lanes=2)
    y, x = _affine(y_at, row, column), _affine(x_at, row, column)
    inside = (y >= 0) & (y < shape.size) & (x >= 0) & (x < shape.size)
    second = x > _affine(e_at, y, column)
    erased = (row >= box[0]) & (row < box[0] + box[2])
    erased &= (column >= box[1]) & (column < box[1] + box[3])
    lanes = jnp.clip(y, 0, side - 1)
    result = []
    for channel, (mean, deviation) in enumerate(zip(shape.mean, shape.deviation, strict=True)):
        none, one = (
            _pick_lanes(
                functools.partial(_load, turned, 2 * channel + k, left), first, lanes, tiles=tiles
            )
            for k in range(2)
        )
        found = jnp.where(inside, jnp.where(second, one, none), 0.0)
        result.append(jnp.where(erased, 0.0, (found - mean) * (1 / deviation)))
    return result


def padded(size: int) -> tuple[int, int]:
    """Rows and columns, R and P, of the planes of an image of `size` pixels a side."""
    return -(-size // (2 * SUBLANES)) * 2 * SUBLANES, -(-size // LANES) * LANES


def _memory(size: int, channels: int = 3) -> int:
    """Bytes of a chip's own memory that the kernel may use."""
    return 13 * channels * padded(size)[1] ** 2 * 4


def fits_vmem(size: int, *, degrees: float, vmem: int) -> bool:
    """Whether the kernel can turn images of `size` pixels a side by as much as `degrees`.

    `vmem` is the bytes of a chip's own memory.
    """
    return degrees <= STEEPEST and _memory(size) <= vmem


def movable(size: int, parts: int) -> bool:
    """Whether the kernel can shuffle parts x parts pieces of an image of `size` pixels a side."""
    return parts <= MOST_PARTS and size % parts == 0 and (size // parts) % SUBLANES == 0


def rotate_planes(
    planes: jax.Array, picks: jax.Array, boxes: jax.Array, orders: jax.Array, *, size: int,
    mean: tuple[float, ...], deviation: tuple[float, ...], interpret: bool = False,
) -> jax.Array:  # fmt: skip
    """What `gather` makes, of square images that lie in planes; then what comes after it. For TPUs.

    Args:
        planes: float32 [N, C, R, P], R and P as `padded` says; what lies beyond `size` is finite.
        picks: int32 [N, 6], of `picks` for angles of at most `STEEPEST` degrees.
        boxes: int32 [N, 4], top, left, height and width of what is 0 in the end.
        orders: int32 [N, parts * parts]; then part `order[i]` is put at place i, as `movable` says.
        size: pixels a side of an image.
        mean, deviation: of the C channels, for normalising before that.
        interpret: see `KernelConfig`.

    Returns:
        float32 [N, C, size, size].
    """
    number, channels, _, side = planes.shape
    parts = math.isqrt(orders.shape[1])
    place = jnp.arange(parts * parts, dtype=jnp.int32)[None, :]
    moves = jnp.stack([orders // parts - place // parts, orders % parts - place % parts], axis=-1)
    moves = (moves * (size // parts)).reshape(number, -1)
    # [N, 13 + 2 parts * parts]: picks, table, box, moves.
    numbers = jnp.concatenate([picks, jax.vmap(_table)(picks), boxes, moves], axis=1)
    result = jax.ShapeDtypeStruct((number, channels, size, size), planes.dtype)
    source, target = (
        pl.BlockSpec((None, *shape[1:]), lambda n: (n, 0, 0, 0))
        for shape in (planes.shape, result.shape)
    )
    scratch = pltpu.VMEM((2 * channels, side, side), jnp.float32)
    return pl.pallas_call(
        functools.partial(_kernel, shape=_Shape(size, parts, mean, deviation)),
        grid=(number,),
        in_specs=[pl.BlockSpec(memory_space=pltpu.SMEM), source],
        out_specs=target,
        out_shape=result,
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
    )(numbers, planes)
