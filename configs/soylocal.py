"""SoyLocal: 200 soybean cultivars, 600 training and 600 test images.

    python -m clevit_jax.main --config configs/soylocal.py --config.data.root=DIR --workdir W

Published top-1 of the method (second-hand): 47.2 %; not reproduced here. One report finds the
brightness jitter harmful on these scans (`--config.views.brightness=0`).
"""

from ml_collections import ConfigDict

from configs import base


def get_config() -> ConfigDict:
    config = base.get_config()
    config.model.num_classes = 200
    return config
