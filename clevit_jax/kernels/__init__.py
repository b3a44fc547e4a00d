"""Swin's blocks as fused kernels for TPUs, on tokens laid out [H, W, B, C]; see `network.py`."""
