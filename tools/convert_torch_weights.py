"""Weights of other libraries into clevit_jax, and back: `clevit_jax_convert`, in a clone.

    python tools/convert_torch_weights.py swin_base_patch4_window7_224_22k.pth weights/swin_base_22k
    python tools/convert_torch_weights.py runs/mine mine.safetensors --to timm

clevit_jax/convert.py is the command; docs/weights.md says more.
"""

from clevit_jax.convert import main, run

__all__ = ["main"]

if __name__ == "__main__":
    run()
