"""SoyGene: 1110 soybean cultivars, 12763 training and 11143 test images.

    python -m clevit_jax.main --config configs/soygene.py --config.data.root=DIR --workdir W

Published top-1 of the method (second-hand): 78.5 %; not reproduced here.
"""

from ml_collections import ConfigDict

from configs import base


def get_config() -> ConfigDict:
    config = base.get_config()
    config.model.num_classes = 1110
    config.optim.lr = 2e-3
    config.loss.positive = 0.3
    config.loss.contrast = 0.5
    return config
