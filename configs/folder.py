"""Your own images, with the settings of base.py.

    python -m clevit_jax.main --config configs/folder.py --config.data.root=DIR --workdir runs/mine

DIR holds `anno/{train,test}.txt` + `images/`, or `train/<class>/*` + `test/<class>/*`; which one,
and the number of classes, is found out. A Swin-B learns little from a few images a class when it
starts from random weights: give it some with --config.model.pretrained=PATH (docs/weights.md), or
take a small one (docs/results.md has settings).
"""

from ml_collections import ConfigDict

from configs import base


def get_config() -> ConfigDict:
    return base.get_config()
