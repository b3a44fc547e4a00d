"""The configs that runs in tests start from: one block or two, on images of 16 pixels."""

from ml_collections import ConfigDict

from configs import base


def get_config(kind: str = "two views") -> ConfigDict:
    """Two blocks and all of the views and losses; `tiny.py:small` is `small`."""
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
    return _shrink(config) if kind == "small" else config


def small() -> ConfigDict:
    """What compiles soonest, and where it is left as it is, to one program for all files.

    For tests whose subject is neither the model nor the views and their losses.
    """
    return get_config("small")


def _shrink(config: ConfigDict) -> ConfigDict:
    config.model.depths = (1,)
    config.model.num_heads = (1,)
    config.model.drop_path = 0.0
    config.views.kind = "base"
    config.views.degrees = 0.0
    config.loss.positive = 0.0
    config.loss.contrast = 0.0
    config.optim.ema = 0.9
    return config
