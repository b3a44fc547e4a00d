"""Your own images, with the settings of base.py.

    python -m clevit_jax.main --config configs/folder.py --config.data.root=DIR --workdir runs/mine

DIR holds class folders, a UFG set, CUB-200-2011, CSV or Parquet tables, or a data set of TFDS
(docs/data.md); the layout and the classes are recognised. A Swin-B that starts from random weights
learns little from a few images per class: give it weights with --config.model.pretrained=PATH
(docs/weights.md), or take a small model (docs/results.md has settings).
"""

from ml_collections import ConfigDict

from configs import base


def get_config() -> ConfigDict:
    return base.get_config()
