"""CUB-200-2011: 200 bird species, 5994 training and 5794 test images.

    python -m clevit_jax.main --config configs/cub.py --config.data.root=DIR --workdir runs/cub

No top-1 of the method is at hand; the best of any method seen is above 93 %. Not reproduced here.
"""

from ml_collections import ConfigDict

from configs import base


def get_config() -> ConfigDict:
    config = base.get_config()
    config.model.num_classes = 200
    config.epochs = 40
    config.loss.positive = 0.3
    config.loss.contrast = 0.5
    return config
