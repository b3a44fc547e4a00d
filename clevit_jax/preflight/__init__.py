"""Whether a config fits a machine that need not be here, and what a step would cost there."""

from clevit_jax.preflight.check import preflight

__all__ = ["preflight"]
