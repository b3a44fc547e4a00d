"""Random initial parameters, drawn by one small program whatever the architecture.

With Flax alone, each parameter is a generator and a truncated normal of its own in the program of
the first state: hundreds of them for a Swin-B, a quarter of what a short run compiles. Threefry
computes number i of a draw from (key, i) alone. So here rows of all parameters are drawn together,
and the bits are those of the initializers.
"""

import dataclasses
import functools
import math
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.extend
import jax.numpy as jnp
import numpy as np
from flax import nnx

WIDTH, ROWS = 4096, 64  # numbers per row, and rows per call of the program


@dataclasses.dataclass(frozen=True)
class Initializer:
    """An initializer that says which key it was given, when `random_params` asks.

    Attributes:
        draw: (key, shape, dtype) -> array.
        deviation: of a normal that is cut at two deviations, where `draw` is one.
    """

    draw: Callable[..., jax.Array]
    deviation: float | None = None

    def __call__(self, key: Any, shape: tuple[int, ...], dtype: Any = jnp.float32) -> Any:
        if not isinstance(key, _Ticket):
            return self.draw(key, shape, dtype)
        place = np.broadcast_to(np.zeros((), dtype), shape)  # takes no memory
        key.taken.append(_Taken(place, key.number, self))
        return place


def truncated_normal(deviation: float) -> Initializer:
    """`nnx.initializers.truncated_normal`."""
    return Initializer(nnx.initializers.truncated_normal(deviation), deviation)


@dataclasses.dataclass(frozen=True)
class _Taken:
    """A parameter: what stands in its place, the number of its key, and its initializer."""

    place: np.ndarray
    number: int
    initializer: Initializer


@dataclasses.dataclass(frozen=True)
class _Ticket:
    """Stands for key `number` while a model is traced."""

    number: int
    taken: list[_Taken]


class _Tickets:
    """Stands for `nnx.Rngs`, to see which parameter takes which key."""

    def __init__(self) -> None:
        self.given = 0
        self.taken: list[_Taken] = []

    def params(self) -> _Ticket:
        self.given += 1
        return _Ticket(self.given - 1, self.taken)


def random_params(build: Callable[[Any], nnx.Module], seed: int) -> Any:
    """Random initial parameters of a model.

    Args:
        build: makes the model from an `nnx.Rngs`; its initializers are each an `Initializer`, or
            zeros, or ones where the parameter is named `scale`.
        seed: of the Threefry keys.

    Returns:
        A nested dict of NumPy float32, the bits of `build(nnx.Rngs(key))`.
    """
    tickets, places = _Tickets(), {}

    def trace() -> None:
        places.update(nnx.to_pure_dict(nnx.state(build(tickets), nnx.Param)))

    with jax.check_tracer_leaks(False):  # the places are kept on purpose, to tell them apart
        jax.eval_shape(trace)
    taken = {id(one.place): one for one in tickets.taken}
    keys = _keys(seed, tickets.given)
    leaves, structure = jax.tree.flatten_with_path(places)
    drawn = [taken.get(id(leaf)) for _, leaf in leaves]  # None for zeros and ones
    normals = _truncated_normals(
        [
            (keys[one.number], one.place.shape, one.initializer.deviation)
            for one in drawn
            if one and one.initializer.deviation is not None
        ]
    )
    params = []
    for (path, leaf), one in zip(leaves, drawn, strict=True):
        if one is None:
            params.append(np.full(leaf.shape, path[-1].key == "scale", np.float32))
        elif one.initializer.deviation is not None:
            params.append(next(normals))
        else:
            key = jax.random.wrap_key_data(keys[one.number], impl="threefry2x32")
            draw = jax.jit(one.initializer.draw, static_argnums=(1, 2))
            params.append(np.asarray(draw(key, leaf.shape, jnp.float32)))
    return jax.tree.unflatten(structure, params)


def _keys(seed: int, count: int) -> np.ndarray:
    """uint32 [count, 2], the keys that `nnx.Rngs` hands out one after the other."""
    numbers = np.arange(-(-count // ROWS) * ROWS, dtype=np.uint32)  # so that few sizes are compiled
    return np.asarray(_fold_in(np.uint32(seed), numbers))[:count]


@jax.jit
def _fold_in(seed: jax.Array, numbers: jax.Array) -> jax.Array:
    root = jax.random.key(seed, impl="threefry2x32")
    return jax.random.key_data(jax.vmap(functools.partial(jax.random.fold_in, root))(numbers))


def _truncated_normals(
    wanted: list[tuple[np.ndarray, tuple[int, ...], float]],
) -> Iterator[np.ndarray]:
    """An array for each (key, shape, deviation), row by row."""
    rows = [
        (*key, first) for key, shape, _ in wanted for first in range(0, math.prod(shape), WIDTH)
    ]
    spare = -len(rows) % ROWS
    numbers = np.array(rows + spare * [(0, 0, 0)], np.uint32).reshape(-1, ROWS, 3)
    drawn = (row for call in numbers for row in np.asarray(_draw(call)))
    for _, shape, deviation in wanted:
        size = math.prod(shape)
        parts = [next(drawn) for _ in range(0, size, WIDTH)]
        yield np.concatenate(parts)[:size].reshape(shape) * np.float32(deviation)


def _bits(key: jax.Array, width: int, shape: tuple[int, ...]) -> jax.Array:
    """The random bits of Threefry's key `key[:2]`, from number `key[2]` on."""
    assert width == 32
    low = key[2] + jax.lax.iota(jnp.uint32, math.prod(shape)).reshape(shape)
    high, low = jax.extend.random.threefry2x32_p.bind(key[0], key[1], jnp.zeros_like(low), low)
    return high ^ low


def _unused(*_: Any) -> Any:
    raise NotImplementedError


_PART = jax.extend.random.define_prng_impl(
    key_shape=(3,),
    seed=_unused,
    split=_unused,
    fold_in=_unused,
    random_bits=_bits,
    name="threefry2x32_part",
    tag="part",
)


@jax.jit
def _draw(rows: jax.Array) -> jax.Array:
    """Truncated normals float32 [ROWS, WIDTH], of key and first number uint32 [ROWS, 3]."""

    def row(data: jax.Array) -> jax.Array:
        key = jax.random.wrap_key_data(data, impl=_PART)
        return jax.random.truncated_normal(key, -2.0, 2.0, (WIDTH,), jnp.float32)

    return jax.vmap(row)(rows)
