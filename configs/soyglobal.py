"""SoyGlobal: 1938 soybean cultivars, 5814 training and 5814 test images.

    python -m clevit_jax.main --config configs/soyglobal.py --config.data.root=DIR --workdir W

Published top-1 of the method (second-hand): 75.2 %; not reproduced here.
"""

from ml_collections import ConfigDict

from configs import base


def get_config() -> ConfigDict:
    config = base.get_config()
    config.model.num_classes = 1938
    return config
