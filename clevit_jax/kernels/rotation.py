"""Pallas kernel for TPUs that rotates, normalises, erases and shuffles images, plane by plane.

It copies the same pixels as `views.rotation.gather_pixels`, bit by bit. A TPU gathers a pixel at a
time from its main memory, but within 128 lanes of a register at once. So the kernel picks in two
passes along lanes. With r the source row and x the output column, the first makes tables
T_k[r, x] = S[r, e(r, x) + k], k = 0 and 1; the second, on the tables transposed,
out[row, x] = T_k[r, x] for the r and k of the pixel. Rows that share r and x differ by less than a
column in what they pick, and e is rounded so that two tables hold them all.
"""

import dataclasses
import functools
import math
from typing import Any

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu

from clevit_jax.kernels.arithmetic import LANES, SUBLANES

ONE = 65536  # 1 in 16.16 fixed point
MAX_PARTS = 4  # per side, when shuffling: each adds code to the kernel
MAX_DEGREES = 40.0  # of a rotation; two tables would do up to 45


def _table(picks: jax.Array) -> jax.Array:
    """e(r, x) as int32 [3] in 16.16 fixed point: at (0, 0), its change per column and per row.

    It lies half a column below what the middle of source row r picks at column x. What a pixel of
    that row picks is less than half a column from there, so e or e + 1.
    """
    y0, yx, yy, x0, xx, xy = picks.astype(jnp.float32)
    slope = xy / yy
    middle = x0 - slope * (y0 - ONE / 2) - ONE / 2
    return jnp.round(jnp.stack([middle, xx - slope * yx, slope * ONE])).astype(jnp.int32)


def _affine(at: list, row: Any, column: Any) -> Any:
    """Value of an affine function [at (0, 0), change per column, change per row]."""
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

    def candidate(i: int) -> jax.Array:
        rows = load(jnp.minimum(first + i, tiles - 1))
        return jnp.take_along_axis(rows, inner, axis=1, mode="promise_in_bounds")

    picked = candidate(0)
    for i in range(1, min(3, tiles)):
        picked = jnp.where(tile == first + i, candidate(i), picked)
    return picked


@dataclasses.dataclass(frozen=True)
class _Static:
    """The static arguments of the kernel: see `rotate_planes`."""

    size: int
    parts: int
    mean: tuple[float, ...]
    deviation: tuple[float, ...]


def _kernel(numbers, source, out, tables, transposed, *, static: _Static) -> None:
    """One image: source [C, R, P], out [C, S, S], tables and transposed [2 C, P, P]."""
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
    _transpose(tables, transposed)
    move = functools.partial(_source_offset, numbers, image, static)
    in_pairs(functools.partial(_second_pass, transposed, tables, at, move, static))
    _transpose(tables, out)


def _transpose(origin: Any, target: Any) -> None:
    """Writes to target [C, H, W] the transposed corner [W, H] of the origin's first channels."""
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
    """Writes both tables of eight source rows, of every channel."""
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
                picked = _pick_lanes(load, first, lanes, tiles=tiles)
                tables[2 * channel + k, pl.ds(start, SUBLANES), pl.ds(column, LANES)] = picked


def _source_offset(
    numbers: Any, image: Any, static: _Static, start: Any, part: int
) -> tuple[Any, Any]:
    """Rows and columns from place to source of part row `part`, in the columns from `start` on."""
    column = jnp.minimum(jax.lax.div(start, static.size // static.parts), static.parts - 1)
    place = 13 + 2 * (part * static.parts + column)
    return numbers[image, place], numbers[image, place + 1]


def _second_pass(
    transposed: Any, tables: Any, at: list, move: Any, static: _Static, start: Any
) -> None:
    """Writes eight columns of the result, [8, P] per channel."""
    tall = static.size // static.parts
    _, lane = _iotas()
    for row in range(0, transposed.shape[-1], LANES):
        to = (pl.ds(start, SUBLANES), pl.ds(row, LANES))
        for part in range(row // tall, min(static.parts, -(-(row + LANES) // tall))):
            down, right = move(start, part)
            begin = pl.multiple_of(start + right, SUBLANES)
            finished = _finished(transposed, at, static, row + down, begin)
            for channel, new in enumerate(finished):
                if part * tall > row:  # the part above has the first lanes
                    new = jnp.where(row + lane >= part * tall, new, tables[channel, *to])
                tables[channel, *to] = new


def _finished(transposed: Any, at: list, static: _Static, top: Any, left: Any) -> list[jax.Array]:
    """Pixels rotated, normalised and erased: columns from `left` on, rows from `top` on.

    An array [8, 128] per channel.
    """
    y_at, x_at, e_at, box = at[:3], at[3:6], at[6:9], at[9:]
    sublane, lane = _iotas()
    side = transposed.shape[-1]
    tiles = side // LANES
    row, column = top + lane, left + sublane
    first = _first_tile(y_at, top, left, tiles=tiles, lanes=2)
    y, x = _affine(y_at, row, column), _affine(x_at, row, column)
    inside = (y >= 0) & (y < static.size) & (x >= 0) & (x < static.size)
    second = x > _affine(e_at, y, column)
    erased = (row >= box[0]) & (row < box[0] + box[2])
    erased &= (column >= box[1]) & (column < box[1] + box[3])
    lanes = jnp.clip(y, 0, side - 1)
    planes = []
    for channel, (mean, deviation) in enumerate(zip(static.mean, static.deviation, strict=True)):
        none, one = (
            _pick_lanes(
                functools.partial(_load, transposed, 2 * channel + k, left),
                first,
                lanes,
                tiles=tiles,
            )
            for k in range(2)
        )
        pixels = jnp.where(inside, jnp.where(second, one, none), 0.0)
        planes.append(jnp.where(erased, 0.0, (pixels - mean) * (1 / deviation)))
    return planes


def plane_shape(size: int) -> tuple[int, int]:
    """Rows and columns, R and P, of the planes of an image of `size` pixels per side."""
    return -(-size // (2 * SUBLANES)) * 2 * SUBLANES, -(-size // LANES) * LANES


def _vmem_bytes(size: int, channels: int = 3) -> int:
    """VMEM that the kernel may use, in bytes."""
    return 13 * channels * plane_shape(size)[1] ** 2 * 4


def fits_vmem(size: int, *, degrees: float, vmem: int) -> bool:
    """Whether the kernel can rotate images of `size` pixels per side by as much as `degrees`.

    `vmem` is how much of it the chip has, in bytes.
    """
    return degrees <= MAX_DEGREES and _vmem_bytes(size) <= vmem


def can_shuffle(size: int, parts: int) -> bool:
    """Whether the kernel can shuffle parts x parts pieces of an image of `size` pixels per side."""
    return parts <= MAX_PARTS and size % parts == 0 and (size // parts) % SUBLANES == 0


def rotate_planes(
    planes: jax.Array, picks: jax.Array, boxes: jax.Array, orders: jax.Array, *, size: int,
    mean: tuple[float, ...], deviation: tuple[float, ...], interpret: bool = False,
) -> jax.Array:  # fmt: skip
    """Rotates, normalises, erases and shuffles square images, in this order.

    Args:
        planes: float32 [N, C, R, P], see `plane_shape`; what lies beyond `size` is finite.
        picks: int32 [N, 6], of `views.rotation.rotation_picks` by at most `MAX_DEGREES`.
        boxes: int32 [N, 4], top, left, height and width of what is set to 0.
        orders: int32 [N, parts * parts]; part `order[i]` is put at place i, see `can_shuffle`.
        size: pixels per side of an image.
        mean, deviation: of the C channels, to normalise by.
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
    rotated = jax.ShapeDtypeStruct((number, channels, size, size), planes.dtype)
    source, target = (
        pl.BlockSpec((None, *shape[1:]), lambda n: (n, 0, 0, 0))
        for shape in (planes.shape, rotated.shape)
    )
    scratch = pltpu.VMEM((2 * channels, side, side), jnp.float32)
    return pl.pallas_call(
        functools.partial(_kernel, static=_Static(size, parts, mean, deviation)),
        grid=(number,),
        in_specs=[pl.BlockSpec(memory_space=pltpu.SMEM), source],
        out_specs=target,
        out_shape=rotated,
        scratch_shapes=[scratch, scratch],
        name="rotation",
        interpret=interpret,
        metadata={"steps": str(number)},
        cost_estimate=pl.CostEstimate(
            flops=100 * planes.size, bytes_accessed=2 * planes.nbytes, transcendentals=0
        ),
        compiler_params=pltpu.CompilerParams(
            dimension_semantics=("arbitrary",), vmem_limit_bytes=_vmem_bytes(size, channels)
        ),
    )(numbers, planes)
