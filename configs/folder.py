"""Your own images, with the recipe of Cotton80.

    python -m clevit_jax.main --config configs/folder.py --config.data.root=DIR --workdir runs/mine

DIR holds `anno/{train,test}.txt` + `images/`, or `train/<class>/*` + `test/<class>/*`; which one,
and the number of classes, is found out. Start from ImageNet-22k weights for a real task: from
scratch, a few images a class teach a Swin-B little.
"""

from ml_collections import ConfigDict

from configs import base


def get_config() -> ConfigDict:
    return base.get_config()
