"""Your own images, with the settings of base.py.

    python -m clevit_jax.main --config configs/folder.py --config.data.root=DIR --workdir runs/mine

DIR holds class folders, a UFG set, CUB-200-2011, CSV or Parquet tables, or what TFDS prepared
(docs/data.md); which, and the number of classes, is found out. A Swin-B learns little from a few
images a class when it starts from random weights: give it some with --config.model.pretrained=PATH
(docs/weights.md), or take a small one (docs/results.md has settings).
"""

from ml_collections import ConfigDict

from configs import base


def get_config() -> ConfigDict:
    return base.get_config()
