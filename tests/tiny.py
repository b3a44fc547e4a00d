"""The config that runs in tests start from: a Swin of two blocks, on images of 16 pixels."""

from ml_collections import ConfigDict

from configs import base


def get_config() -> ConfigDict:
    config = base.get_config()
    config.image_size = 16
    config.data.resize = 16
    config.eval.resize = 16
    config.eval.batch_size = 4
    config.batch_size = 4
    config.epochs = 1
    config.log.report = False  # tests/test_report.py has it
    config.optim.warmup_epochs = 0.0
    config.model.embed_dim = 8
    config.model.depths = (1, 1)
    config.model.num_heads = (1, 2)
    config.model.window = 2
    return config
