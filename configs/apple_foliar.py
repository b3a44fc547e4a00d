"""Apple foliar disease (AFD): 4 classes, 1366 training and 455 test images.

    python -m clevit_jax.main --config configs/apple_foliar.py --config.data.root=DIR --workdir W

The split of the paper is not published, so no number can be compared with it.
"""

from ml_collections import ConfigDict

from configs import base


def get_config() -> ConfigDict:
    config = base.get_config()
    config.model.num_classes = 4
    config.epochs = 100
    return config
