"""`--mode preflight`: compiles the steps of a config for a machine, and says whether they fit."""

import dataclasses
import json
import sys
import time
from collections.abc import Callable
from typing import Any

import jax
from ml_collections import ConfigDict

from clevit_jax.config import check_config, resolve, resolve_data
from clevit_jax.data.open import open_data
from clevit_jax.distributed import sharding
from clevit_jax.errors import ConfigError, first_line
from clevit_jax.performance import preflight_report
from clevit_jax.performance.cost import Cost, read_cost
from clevit_jax.performance.topologies import Target, find_target
from clevit_jax.steps.jitted import JittedSteps, make_jitted_steps
from clevit_jax.system.faults import is_out_of_memory


def preflight(
    config: ConfigDict, topology: str, *, as_json: bool = False, largest_batch: bool = False
) -> int:
    """Compiles the very steps that training runs; prints whether they fit and what they cost.

    Nothing is run, no image is read and no file written.

    Args:
        config: in the form of `configs/base.py`.
        topology: the machine, see `topologies.find_target`.
        as_json: whether to print JSON (in bytes, seconds and FLOPs) instead of text.
        largest_batch: whether to look for the largest batch that fits, by compiling again.

    Returns:
        0 when both steps fit, 1 when one does not.

    Raises:
        ConfigError: a setting that cannot be used, an unknown machine, or a compiler that fails.
    """
    try:
        check_config(config, "cpu")  # before a machine is looked for
        num_classes = _num_classes(config)
        target = find_target(topology)
        mesh = sharding.make_mesh(config.mesh.data, config.mesh.fsdp, devices=target.devices)
        steps = make_steps(config, mesh, target, num_classes)
    except ValueError as error:
        raise ConfigError(str(error)) from error
    started = time.perf_counter()
    train, problem = _try(steps.train_step, _arguments(steps), target)
    evaluation, eval_problem = _try(
        steps.eval_step, (steps.abstract_state.eval_params, steps.eval_batch), target
    )
    result = preflight_report.PreflightResult(
        target=target,
        config=steps.config,
        model=steps.model,
        mesh=(mesh.shape["data"], mesh.shape["fsdp"]),
        train=train,
        evaluation=evaluation,
        kernels=steps.kernels,
        problems=[p for p in (problem, eval_problem) if p],
        seconds=time.perf_counter() - started,
    )
    if largest_batch:
        unit = mesh.size * config.accumulation

        def peak(units: int) -> float:
            print(f"Trying a batch of {units * unit} images.", file=sys.stderr, flush=True)
            changed = config.copy_and_resolve_references()
            changed.unlock()
            changed.batch_size = units * unit
            steps = make_steps(changed, mesh, target, num_classes)
            cost, _ = _try(steps.train_step, _arguments(steps), target)
            return cost.memory.peak if cost else float("inf")

        known = train.memory.peak if train else float("inf")
        first = config.batch_size // unit
        units = largest_within(peak, target.memory, start=first, known=known)
        result = dataclasses.replace(result, largest_batch=units * unit)
    if as_json:
        print(json.dumps(preflight_report.preflight_json(result), indent=2))
    else:
        print(preflight_report.preflight_text(result))
    return 0 if result.fits else 1


def _num_classes(config: ConfigDict) -> int:
    """The number of classes that the config names, or else the data set has."""
    if config.model.num_classes or config.data.leaves.classes:
        return config.model.num_classes or config.data.leaves.classes
    if not (config.data.root or config.data.tfds):
        raise ConfigError(
            "The number of classes is not known; set --config.model.num_classes=N, or "
            "--config.data.root=DIR to count them."
        )
    return open_data(resolve_data(config)).num_classes


def make_steps(config: ConfigDict, mesh: Any, target: Target, num_classes: int) -> JittedSteps:
    """The steps of a config, to be compiled for the devices of a mesh of a target."""
    config = config.copy_and_resolve_references().unlock()
    config.model.num_classes = num_classes
    return make_jitted_steps(resolve(config, None, target.platform).step, mesh)


def _arguments(steps: JittedSteps) -> tuple[Any, ...]:
    """Shapes of the arguments of an update."""
    return steps.abstract_state, steps.train_batch, steps.abstract_numbers


def _try(step: Any, arguments: tuple[Any, ...], target: Target) -> tuple[Cost | None, str]:
    """The cost of a step, or why the compiler found no room for it."""
    lowered = step.trace(*arguments).lower(lowering_platforms=(target.lowering,))
    try:
        compiled = lowered.compile(compiler_options=target.options or None)
    except jax.errors.JaxRuntimeError as error:
        reason = first_line(error)
        if not is_out_of_memory(error):
            raise ConfigError(f"The compiler for {target.name} fails: {reason}") from error
        return None, reason
    return read_cost(compiled, devices=len(target.devices), slices=target.slices), ""


def largest_within(peak: Callable[[int], float], limit: float, *, start: int, known: float) -> int:
    """The largest number of units whose peak is within the limit; 0 when not even one is.

    Memory grows about linearly, in steps where kernels pad a batch. So the first try is where the
    line through the lowest and the highest known peak meets the limit; later tries take turns
    between that and the middle of what is left.

    Args:
        peak: bytes that a number of units takes; infinite where the compiler gave up.
        limit: bytes that there are.
        start: units whose peak is known.
        known: that peak.
    """
    peaks = {0: 0.0, start: known}
    halve = False
    while True:
        good = max(n for n, p in peaks.items() if p <= limit)
        bad = min((n for n, p in peaks.items() if p > limit), default=None)
        if bad is not None and bad - good == 1:
            return good
        finite = sorted((n, p) for n, p in peaks.items() if 0 < p < float("inf"))
        guess = 2 * good
        if len(finite) > 1:
            (a, low), (b, high) = finite[0], finite[-1]
            slope = max((high - low) / (b - a), 1.0)
            guess = min(4 * good, max(int(b + (limit - high) / slope), good + 1))
        if bad is not None:
            if halve or not good < guess < bad:
                guess = (good + bad) // 2
            halve = not halve
        peaks[guess] = peak(guess)
