"""Memory, FLOPs, cycles and traffic of a compiled program, read from it and its HLO.

All figures are per device. They are the compiler's; nothing is run.
"""

import dataclasses
from typing import Any

from clevit_jax.performance.collectives import Traffic, read_network, read_traffic
from clevit_jax.performance.hlo import Kernel, read_bytes, read_cycles, read_kernels


@dataclasses.dataclass(frozen=True)
class Memory:
    """Bytes per device, as the compiler plans them.

    Attributes:
        arguments: state and batch.
        temporaries: the most that is alive at once inside the program.
        outputs: what it returns, but for outputs that take the place of an argument.
        code: the program itself.
    """

    arguments: float
    temporaries: float
    outputs: float
    code: float

    @property
    def peak(self) -> float:
        """The sum of these."""
        return self.arguments + self.temporaries + self.outputs + self.code


@dataclasses.dataclass(frozen=True)
class Cost:
    """Cost of a compiled program, per device.

    Attributes:
        memory: see `Memory`.
        flops: floating-point operations, recomputed ones too; None where the compiler does not
            count them.
        bytes_accessed: bytes that its operations read and write; not all of them reach the memory.
        cycles: the compiler's estimate for all but collectives and kernels; None where there is
            none.
        traffic: by kind of collective.
        kernels: Pallas kernels as they describe themselves; the compiler estimates nothing of them.
        network: what goes over the network between slices, by kind; `traffic` is inside a slice.
    """

    memory: Memory
    flops: float | None
    bytes_accessed: float
    cycles: float | None
    traffic: dict[str, Traffic]
    kernels: tuple[Kernel, ...] = ()
    network: dict[str, Traffic] = dataclasses.field(default_factory=dict)


def read_memory(compiled: Any) -> Memory:
    """Memory per device that the compiler plans for a `jax.stages.Compiled`."""
    plan = compiled.memory_analysis()
    return Memory(
        arguments=plan.argument_size_in_bytes,
        temporaries=plan.temp_size_in_bytes,
        outputs=plan.output_size_in_bytes - plan.alias_size_in_bytes,
        code=plan.generated_code_size_in_bytes,
    )


def read_cost(compiled: Any, *, devices: int, slices: int = 1) -> Cost:
    """Cost of a `jax.stages.Compiled` that runs on `devices` devices, in `slices` slices."""
    costs = compiled.cost_analysis() or {}
    text = compiled.as_text()
    return Cost(
        memory=read_memory(compiled),
        flops=costs.get("flops"),
        bytes_accessed=costs.get("bytes accessed") or read_bytes(text),
        cycles=read_cycles(text),
        # The program of a TPU is that of one slice, and numbers the devices of this alone.
        traffic=read_traffic(text, devices=devices // slices),
        kernels=read_kernels(text),
        network=read_network(text, slices=slices),
    )
