"""A small CLE-ViT on procedural leaves, in minutes on two CPU cores.

    python -m clevit_jax.main --config configs/demo.py --workdir runs/demo

Expect a test top-1 of about 62 % (chance 10 %, nearest neighbour by colour 11 %): docs/results.md.
"""

from ml_collections import ConfigDict

from configs import base


def get_config() -> ConfigDict:
    config = base.get_config()
    config.data.root = "runs/demo-leaves"
    config.data.leaves.classes = 10
    config.data.resize = 80
    config.image_size = 64
    config.eval.resize = 72
    config.eval.batch_size = 50
    config.eval.every_epochs = 20
    config.epochs = 80
    config.batch_size = 20
    config.model.embed_dim = 32
    config.model.depths = (1, 2, 2)
    config.model.num_heads = (1, 2, 4)
    config.model.window = 4
    config.model.drop_path = 0.1
    config.optim.lr = 2e-2
    config.optim.warmup_epochs = 5.0
    return config
