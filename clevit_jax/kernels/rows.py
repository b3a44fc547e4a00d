"""Kernels that go over tokens row by row: how [H, W, B, C] is cut, read and written.

With images on the second axis from the end, which a TPU tiles by 8, and the grid's height and
width before it, where nothing is tiled, a piece of the grid is an address and not a copy. A step of
a kernel has some lines of the grid, their whole width, and some images. Inside it goes over chunks
of a few hundred rows, a row being the channels of one token of one image.

The windows of a shifted block are those of the grid rolled up and left. Nothing is rolled: what
would be is written to, and read from, its place in the rolled grid.
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

ROWS = 768  # of a chunk, at most: enough to fill the matrix units, few enough for the registers
STEP_ROWS = 1024  # of a step, at most, when it could take more lines
# Channels up to which chunks of 16 bits are no loop: one's little work hides in the other's.
UNROLLED = 256
IMAGES = 48  # of a step, at most
# How much smaller pieces are in float32, where a product is six of bfloat16's and what does not fit
# the registers would fill the chip's own memory.
FLOAT32_PIECES = 2


@dataclasses.dataclass(frozen=True)
class Grid:
    """Tokens [height, width, batch], and how kernels cut them.

    Attributes:
        height, width: tokens of an image.
        batch: images, a multiple of 8.
        roll: tokens by which windows are shifted; 0 for a block that shifts none.
        vmem: bytes of the chip's own memory that a kernel may use.
        interpret: run the kernels step by step, on any device.
        most: images of a step, at most; also lowers how many lines a step has.
        itemsize: bytes of a channel of a token: 2 or 4, which is float32.
    """

    height: int
    width: int
    batch: int
    roll: int = 0
    vmem: int = 56 << 20
    interpret: bool = False
    most: int = IMAGES
    itemsize: int = 2

    def __post_init__(self) -> None:
        if self.batch % SUBLANES:
            raise ValueError(f"a batch of {self.batch} is no multiple of {SUBLANES}.")

    @property
    def unrolled(self) -> "Grid":
        """The same tokens where none are rolled."""
        return dataclasses.replace(self, roll=0)

    @property
    def images(self) -> int:
        """Of a step."""
        sizes = range(SUBLANES, min(self.most, self.batch) + 1, SUBLANES)
        return max(size for size in sizes if self.batch % size == 0)

    def smaller_steps(self) -> Iterator["Grid"]:
        """These, then the same tokens with ever fewer of them a step."""
        yield self
        for images in range(self.images, 0, -SUBLANES):
            if self.batch % images == 0:
                yield dataclasses.replace(self, most=images)

    @property
    def lines(self) -> int:
        """Of a step; one where lines are rolled, for they go to places of their own."""
        rows = STEP_ROWS * self.most // IMAGES
        most = 1 if self.roll else max(1, rows // (self.width * self.images))
        return max(n for n in range(1, most + 1) if self.height % n == 0)

    @property
    def steps(self) -> tuple[int, int]:
        """The grid of a kernel: parts of the height, parts of the batch."""
        return self.height // self.lines, self.batch // self.images

    @property
    def chunk(self) -> tuple[int, int]:
        """Lines and columns of the pieces that a step is worked on in."""
        line, most = self.width * self.images, self.part(ROWS)
        columns = max((n for n in range(1, self.width + 1)
                       if self.width % n == 0 and n * self.images <= most), default=1)  # fmt: skip
        lines = max((n for n in range(1, self.lines + 1)
                     if self.lines % n == 0 and n * line <= most), default=1)  # fmt: skip
        return lines, columns

    def part(self, most: int) -> int:
        """How many rows or lanes a piece has where 16 bits would have `most`."""
        return most // FLOAT32_PIECES if self.itemsize == 4 else most

    @property
    def rows(self) -> int:
        """Of a piece."""
        return math.prod(self.chunk) * self.images

    def for_chunks(self, tokens: Any, body: Callable[["Chunk"], None]) -> None:
        """Goes over a step, piece by piece; `tokens` is the reference to one of its blocks."""
        lines, columns = self.chunk
        across = self.width // columns
        count = self.lines // lines * across
        # Where lines are rolled, places must be known: a piece across the edge is in two.
        if self.roll or (tokens.dtype.itemsize == 2 and tokens.shape[-1] <= UNROLLED):
            for i in range(count):
                body(Chunk(self, i // across * lines, i % across * columns))
            return

        def one(i: Any, _: None) -> None:
            body(Chunk(self, jax.lax.div(i, across) * lines, jax.lax.rem(i, across) * columns))

        jax.lax.fori_loop(0, count, one, None)

    def for_parts(self, whole: int, part: int, body: Callable[[Any, int], None]) -> None:
        """Goes over `whole` lanes, `part` at a time (the last may be fewer): body(start, size)."""
        part = self.part(part)
        if whole // part > 2 and whole % part == 0:
            jax.lax.fori_loop(0, whole // part, lambda i, _: body(i * part, part), None)
            return
        for start in range(0, whole, part):
            body(start, min(part, whole - start))


@dataclasses.dataclass(frozen=True)
class Chunk:
    """Some lines and columns of a step's block [lines, width, images, n], from (line, start)."""

    grid: Grid
    line: Any
    start: Any

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

    def repeat(self, per_image: jax.Array) -> jax.Array:
        """Rows of a value [images, n] that is the same for all tokens of an image."""
        lines, columns = self.grid.chunk
        shape = (lines * columns, *per_image.shape)
        return jnp.broadcast_to(per_image[None], shape).reshape(-1, per_image.shape[-1])

    @property
    def _lines(self) -> Any:
        return pl.ds(self.line, self.grid.chunk[0])

    @property
    def _columns(self) -> Any:
        return pl.ds(self.start, self.grid.chunk[1])

    def _places(self, rolled: bool) -> list[tuple[slice, Any]]:
        """Columns of the chunk, and where in the block they are: two pieces across the edge."""
        width, n = self.grid.width, self.grid.chunk[1]
        if not (rolled and self.grid.roll):
            return [(slice(0, n), self._columns)]
        start = (self.start - self.grid.roll) % width
        inside = min(n, width - start)
        places = [(slice(0, inside), pl.ds(start, inside))]
        return places if inside == n else [*places, (slice(inside, n), pl.ds(0, n - inside))]


def whole_lanes(channels: int) -> int:
    """How many channels the rows of registers hold that so many take."""
    return -(-channels // LANES) * LANES


def lanes(start: Any, size: int) -> Any:
    """An index of lanes that the compiler knows to begin where registers do."""
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
    """An operand [B, n], of which each step has the rows of its images."""

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
    """Runs a kernel over all tokens.

    Args:
        kernel: takes references to the blocks of operands and results, and `grid`.
        name: in profiles and dumps.
        operands: arrays.
        results: shapes. A `Whole` one is 0 before the first step and keeps what steps add.
        grid: the tokens.
        flops: of the whole call, for the compiler's plan.
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
    """What a step has of an operand or result."""
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


def like(grid: Grid, channels: int, dtype: Any) -> jax.ShapeDtypeStruct:
    """The shape of tokens [H, W, B, channels]."""
    return jax.ShapeDtypeStruct((grid.height, grid.width, grid.batch, channels), dtype)


def per_image(scale: jax.Array, channels: int) -> PerImage:
    """A number an image, float32 [B], in as many lanes as the rows that it multiplies."""
    return PerImage(jnp.broadcast_to(scale[:, None], (scale.shape[0], channels)))
