"""SoyAgeing: 198 soybean cultivars at one growth stage, 990 training and 990 test images.

    python -m clevit_jax.main --config soyageing:R3 --workdir W

The argument is the stage, R1, R3, R4, R5 or R6: `data.root` is `data/soyageing/R3` and so on.
Published top-1 of the method (second-hand): R1 80.1 %, R3 83.3 %, R4 84.2 %, R5 86.4 %, mean of the
five 82.1 %; not reproduced here.
"""

from ml_collections import ConfigDict

from configs import base

STAGES = ("R1", "R3", "R4", "R5", "R6")


def get_config(stage: str = "") -> ConfigDict:
    if stage not in STAGES:
        raise ValueError(
            f"soyageing needs a growth stage, one of {', '.join(STAGES)}: write "
            f"--config soyageing:R3, not {stage or 'nothing'!r} after the colon."
        )
    config = base.get_config()
    config.model.num_classes = 198
    config.data.root = f"data/soyageing/{stage}"
    return config
