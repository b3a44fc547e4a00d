"""Pallas kernels for TPUs: Swin's blocks on tokens [H, W, B, C], and the rotation of views."""
