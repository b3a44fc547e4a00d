"""CLE-ViT in JAX: ultra-fine-grained image classification from a handful of images a class.

The command is `python -m clevit_jax.main`. The parts, for use by themselves:

* `load`: a trained model, with `.predict`, `.features` and `.explain` of images as they are, and
  `logits, features = load(path)(images)` of prepared ones.
* `Swin`, `SwinConfig`: the network.
* `ViewConfig`, `example_keys`, `make_views`: the two views, on the device.
* `cross_entropy`, `supervised_cosine`, `instance_triplet`: the terms of the loss.
"""

from clevit_jax.classifier import Classifier, load
from clevit_jax.losses import cross_entropy, instance_triplet, supervised_cosine
from clevit_jax.swin import Swin
from clevit_jax.swin_config import SwinConfig
from clevit_jax.views import ViewConfig, example_keys, make_views

__all__ = [
    "Classifier",
    "Swin",
    "SwinConfig",
    "ViewConfig",
    "cross_entropy",
    "example_keys",
    "instance_triplet",
    "load",
    "make_views",
    "supervised_cosine",
]
