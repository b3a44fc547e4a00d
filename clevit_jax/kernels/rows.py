"""Row-wise kernels on tokens [H, W, B, C]: how these are cut, read and written.

A TPU tiles the last two axes alone, images by 8 and channels by 128. So a piece of the grid, whose
height and width come before them, is an address and not a copy. A step of a kernel has some lines
of the grid, their whole width, and some images. Inside it goes over chunks of a few hundred rows, a
row being the channels of one token of one image.

The windows of a shifted block are those of the grid rolled up and left. No array is rolled: tokens
are written to, and read from, their places in the rolled grid.
"""

import dataclasses
import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu

from clevit_jax.kernels.arithmetic import LANES, SUBLANES

CHUNK_ROWS = 768  # at most: enough to fill the matrix units, few enough for the registers
STEP_ROWS = 1024  # at most, when a step could take more lines
# Channels up to which chunks of 16 bits are unrolled: their work is so little that it overlaps.
UNROLL_CHANNELS = 256
STEP_IMAGES = 48  # at most
# Chunks are this much smaller in float32: HIGHEST takes six bfloat16 passes, and spills would fill
# VMEM.
FLOAT32_DIVISOR = 2


@dataclasses.dataclass(frozen=True)
class Grid:
    """Tokens [height, width, batch], and how kernels cut them.

    Attributes:
        height, width: tokens of an image.
        batch: images, a multiple of 8.
        roll: tokens by which windows are shifted; 0 for a block that shifts none.
        vmem: bytes of VMEM that a kernel may use.
        interpret: run the kernels in Pallas's interpreter, on any device.
        max_images: per step; fewer images also mean fewer lines per step.
        itemsize: bytes per channel of a token: 2, or 4 for float32.
    """

    height: int
    width: int
    batch: int
    roll: int = 0
    vmem: int = 56 << 20
    interpret: bool = False
    max_images: int = STEP_IMAGES
    itemsize: int = 2

    def __post_init__(self) -> None:
        if self.batch % SUBLANES:
            raise ValueError(f"a batch of {self.batch} is not a multiple of {SUBLANES}.")

    @property
    def without_roll(self) -> "Grid":
        """The same tokens, not rolled."""
        return dataclasses.replace(self, roll=0)

    @property
    def images(self) -> int:
        """Images per step."""
        sizes = range(SUBLANES, min(self.max_images, self.batch) + 1, SUBLANES)
        return max(size for size in sizes if self.batch % size == 0)

    def smaller_steps(self) -> Iterator["Grid"]:
        """This grid, then the same tokens with ever fewer of them per step."""
        yield self
        for images in range(self.images, 0, -SUBLANES):
            if self.batch % images == 0:
                yield dataclasses.replace(self, max_images=images)

    @property
    def lines(self) -> int:
        """Lines per step; one where the grid is rolled, for each goes to a place of its own."""
        rows = STEP_ROWS * self.max_images // STEP_IMAGES
        most = 1 if self.roll else rows // (self.width * self.images)
        return _largest_divisor(self.height, most)

    @property
    def steps(self) -> tuple[int, int]:
        """The grid of a kernel: parts of the height, parts of the batch."""
        return self.height // self.lines, self.batch // self.images

    @property
    def chunk(self) -> tuple[int, int]:
        """Lines and columns of the chunks that a step goes over."""
        line, most = self.width * self.images, self.limit(CHUNK_ROWS)
        columns = _largest_divisor(self.width, most // self.images)
        lines = _largest_divisor(self.lines, most // line)
        return lines, columns

    def limit(self, size: int) -> int:
        """`size` rows or lanes of 16 bits, or fewer of float32."""
        return size // FLOAT32_DIVISOR if self.itemsize == 4 else size

    @property
    def rows(self) -> int:
        """Rows per chunk."""
        return math.prod(self.chunk) * self.images

    def for_chunks(self, tokens: Any, body: Callable[["Chunk"], None]) -> None:
        """Goes over a step, chunk by chunk; `tokens` is the reference to one of its blocks."""
        lines, columns = self.chunk
        across = self.width // columns
        count = self.lines // lines * across
        # Where the grid is rolled, places must be known: a chunk across the edge is in two.
        if self.roll or (tokens.dtype.itemsize == 2 and tokens.shape[-1] <= UNROLL_CHANNELS):
            for i in range(count):
                body(Chunk(self, i // across * lines, i % across * columns))
            return

        def one(i: Any, _: None) -> None:
            body(Chunk(self, jax.lax.div(i, across) * lines, jax.lax.rem(i, across) * columns))

        jax.lax.fori_loop(0, count, one, None)

    def for_parts(self, whole: int, part: int, body: Callable[[Any, int], None]) -> None:
        """Goes over `whole` lanes, `part` at a time (the last may be fewer): body(start, size)."""
        part = self.limit(part)
        if whole // part > 2 and whole % part == 0:
            jax.lax.fori_loop(0, whole // part, lambda i, _: body(i * part, part), None)
            return
        for start in range(0, whole, part):
            body(start, min(part, whole - start))


def _largest_divisor(number: int, most: int) -> int:
    """The largest divisor of a number that is at most `most`; 1 if `most` is less."""
    return max(n for n in range(1, max(1, min(most, number)) + 1) if number % n == 0)


@dataclasses.dataclass(frozen=True)
class Chunk:
    """Some lines and columns of a step's block [lines, width, images, n], from (line, column)."""

    grid: Grid
    line: Any  # an int, or traced
    column: Any

    def read(self, ref: Any, lanes: Any = slice(None), *, rolled: bool = False) -> jax.Array:
        """float32 [rows, n]; `rolled` where the block is one of the rolled grid."""
        parts = [ref[self._lines, at, :, lanes] for _, at in self._places(rolled)]
        whole = parts[0] if len(parts) == 1 else jnp.concatenate(parts, axis=1)
        return whole.astype(jnp.float32).reshape(-1, whole.shape[-1])

    def write(
        self, ref: Any, value: jax.Array, lanes: Any = slice(None), *, rolled: bool = False
    ) -> None:
        """The inverse of `read`; rounds to the dtype of the block."""
        lines, columns = self.grid.chunk
        value = value.reshape(lines, columns, self.grid.images, -1)
        for of_value, at in self._places(rolled):
            ref[self._lines, at, :, lanes] = value[:, of_value].astype(ref.dtype)

    def read_corner(self, ref: Any, row: int, column: int) -> jax.Array:
        """float32 [rows, n] of a block [lines, 2, width, 2, images, n]: one of four neighbours."""
        value = ref[self._lines, row, self._columns, column].astype(jnp.float32)
        return value.reshape(-1, value.shape[-1])

    def write_corner(self, ref: Any, value: jax.Array, row: int, column: int) -> None:
        """The inverse of `read_corner`; rounds to the dtype of the block."""
        shape = (*self.grid.chunk, self.grid.images, value.shape[-1])
        ref[self._lines, row, self._columns, column] = value.reshape(shape).astype(ref.dtype)

    def repeat(self, values: jax.Array) -> jax.Array:
        """Rows [rows, n] of values per image, [images, n], the same for all tokens of an image."""
        lines, columns = self.grid.chunk
        shape = (lines * columns, *values.shape)
        return jnp.broadcast_to(values[None], shape).reshape(-1, values.shape[-1])

    @property
    def _lines(self) -> Any:
        return pl.ds(self.line, self.grid.chunk[0])

    @property
    def _columns(self) -> Any:
        return pl.ds(self.column, self.grid.chunk[1])

    def _places(self, rolled: bool) -> list[tuple[slice, Any]]:
        """Columns of the chunk, and where in the block they are: in two pieces across the edge."""
        width, n = self.grid.width, self.grid.chunk[1]
        if not (rolled and self.grid.roll):
            return [(slice(0, n), self._columns)]
        start = (self.column - self.grid.roll) % width
        inside = min(n, width - start)
        places = [(slice(0, inside), pl.ds(start, inside))]
        return places if inside == n else [*places, (slice(inside, n), pl.ds(0, n - inside))]


def whole_lanes(channels: int) -> int:
    """Channels, rounded up to whole registers."""
    return -(-channels // LANES) * LANES


def lane_slice(start: Any, size: int) -> Any:
    """A slice of lanes, of which the compiler knows that it is aligned to registers."""
    known = isinstance(start, int)
    return pl.ds(start if known else pl.multiple_of(start, math.gcd(size, LANES)), size)


@dataclasses.dataclass(frozen=True)
class Tokens:
    """An operand or result [H, W, B, n], of which each step has its part."""

    array: Any  # the array, or a jax.ShapeDtypeStruct
    rolled: bool = False


@dataclasses.dataclass(frozen=True)
class Neighbours:
    """An operand or result [H, 2, W, 2, B, n]: four tokens for each of the grid."""

    array: Any


@dataclasses.dataclass(frozen=True)
class PerImage:
    """An operand [B, n], of which each step has the rows of its images; see `per_image`."""

    array: Any


@dataclasses.dataclass(frozen=True)
class Whole:
    """An operand or result [m, n] that every step has whole: weights, and sums over all steps."""

    array: Any


Operand = Tokens | Neighbours | PerImage | Whole


def call(
    kernel: Callable[..., None],
    name: str,
    operands: Sequence[Operand],
    results: Sequence[Operand],
    *,
    grid: Grid,
    flops: float,
    scratch: Sequence[tuple[int, int]] = (),
) -> list[jax.Array]:
    """Runs a kernel over all tokens of a grid.

    Args:
        kernel: takes references to the blocks of operands, results and scratch, and `grid`.
        name: of the kernel in profiles and dumps.
        operands: arrays.
        results: shapes. A `Whole` one is 0 before the first step and keeps what steps add.
        grid: the tokens.
        flops: of the whole call, for the compiler's schedule.
        scratch: shapes of float32 blocks that a step works in; their references come last.
    """
    first, last = grid.steps

    sums = [i for i, result in enumerate(results) if isinstance(result, Whole)]

    def body(*refs: Any) -> None:
        outputs = refs[len(operands) :]

        @pl.when((pl.program_id(0) == 0) & (pl.program_id(1) == 0))
        def _() -> None:
            for i in sums:
                outputs[i][...] = jnp.zeros_like(outputs[i])

        kernel(*refs, grid=grid)

    arrays = [operand.array for operand in operands]
    shapes = [jax.ShapeDtypeStruct(r.array.shape, r.array.dtype) for r in results]
    moved = sum(a.size * a.dtype.itemsize for a in (*arrays, *shapes))
    return pl.pallas_call(
        body,
        grid=(first, last),
        in_specs=[_spec(operand, grid) for operand in operands],
        out_specs=[_spec(result, grid) for result in results],
        out_shape=shapes,
        scratch_shapes=[pltpu.VMEM(shape, jnp.float32) for shape in scratch],
        name=name,
        interpret=grid.interpret,
        metadata={"steps": str(first * last)},
        cost_estimate=pl.CostEstimate(flops=int(flops), bytes_accessed=moved, transcendentals=0),
        compiler_params=pltpu.CompilerParams(
            # Steps that share a sum, or a rolled line, must come one after the other.
            dimension_semantics=("arbitrary", "arbitrary"),
            vmem_limit_bytes=grid.vmem,
        ),
    )(*arrays)


def _spec(operand: Operand, grid: Grid) -> pl.BlockSpec:
    """The block of an operand or result that a step has."""
    array = operand.array
    if isinstance(operand, Whole):
        # Fetched or written once: a second buffer would only take room.
        return pl.BlockSpec(array.shape, lambda i, b: (0, 0), pipeline_mode=pl.Buffered(1))
    if isinstance(operand, PerImage):
        return pl.BlockSpec((grid.images, array.shape[1]), lambda i, b: (b, 0))
    if isinstance(operand, Neighbours):
        shape = (grid.lines, 2, grid.width, 2, grid.images, array.shape[-1])
        return pl.BlockSpec(shape, lambda i, b: (i, 0, 0, 0, b, 0))
    up = grid.height - grid.roll if operand.rolled else grid.height
    return pl.BlockSpec(
        (grid.lines, grid.width, grid.images, array.shape[-1]),
        lambda i, b: (jax.lax.rem(i + up, grid.height) if grid.roll else i, 0, b, 0),
    )


def token_shape(grid: Grid, channels: int, dtype: Any) -> jax.ShapeDtypeStruct:
    """Shape and dtype of tokens [H, W, B, channels]."""
    return jax.ShapeDtypeStruct((grid.height, grid.width, grid.batch, channels), dtype)


def per_image(scale: jax.Array, channels: int) -> PerImage:
    """One number per image, float32 [B], repeated over the channels that it multiplies."""
    return PerImage(jnp.broadcast_to(scale[:, None], (scale.shape[0], channels)))
