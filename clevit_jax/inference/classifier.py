"""`Classifier`, a trained Swin for use: images in; predictions, features and maps out."""

import functools
import hashlib
import itertools
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from PIL import Image

from clevit_jax.data import decode
from clevit_jax.data.dataset import Level, StoredImage
from clevit_jax.data.decode import PLAIN, Decoding
from clevit_jax.distributed import sharding
from clevit_jax.errors import WeightsError
from clevit_jax.inference import cam, explanation, images_in, prediction
from clevit_jax.inference.class_names import find_class
from clevit_jax.inference.explanation import Explanation
from clevit_jax.inference.forward import make_forward, make_layer_forward, normalizer, padded
from clevit_jax.inference.images_in import ImageLike
from clevit_jax.inference.prediction import Grouping, Prediction
from clevit_jax.model.config import SwinConfig
from clevit_jax.model.preprocessing import Preprocessing
from clevit_jax.model.swin import abstract_swin
from clevit_jax.weights.convert import named_leaves

BATCH_SIZE = 32  # longer lists of images are computed in parts of this size


class Classifier:
    """A Swin and its parameters, on all devices of this process; compiled at the first use.

    Attributes:
        model: the architecture; `model.image_size` is the side of the images it takes.
        class_names: names of the columns of the logits; their numbers where no names are known;
            () of a headless network, which has features alone.
        class_count: columns of the logits.
        source: the file or the run that the parameters come from, as messages call it.
        preprocessing: how an image is resized, cropped and normalised.
        assumed: whether nobody said that, so that it is `Preprocessing.usual`.
        map_name: the map that `explain` draws by default; see `inference.cam`.
        levels: coarser levels of the classes, the coarsest first; () where none are known.
        decoding: how images are decoded where their files do not tell; of a run, as in training.
        headless: whether the network has no head, so that it gives `features` and no answers.
    """

    def __init__(
        self,
        model: SwinConfig,
        params: Any,
        class_names: Sequence[str],
        source: str,
        *,
        preprocessing: Preprocessing | None = None,
        map_name: str | None = None,
        levels: Sequence[Level] = (),
        decoding: Decoding = PLAIN,
        headless: bool = False,
    ) -> None:
        self.model, self.source, self.headless = model, source, headless
        self.class_count = 0 if headless else model.num_classes
        self.class_names = tuple(class_names) or tuple(map(str, range(self.class_count)))
        self.assumed = preprocessing is None
        self.preprocessing = preprocessing or Preprocessing.usual(model.image_size)
        self.map_name = map_name or cam.default_map(model)
        self.levels = tuple(levels)
        self._groupings = tuple(map(Grouping, self.levels))
        self.decoding = decoding
        self._mesh = sharding.make_mesh(devices=jax.local_devices())
        self._params = jax.device_put(params, sharding.replicated(self._mesh))
        graphdef = abstract_swin(model)[0]
        self._apply = jax.jit(lambda params, images: nnx.merge(graphdef, params)(images))
        rows = sharding.batch_sharding(self._mesh)
        self._outputs = jax.jit(make_forward(model, self.preprocessing), out_shardings=rows)
        # One jitted function per set of maps, and per layer, that is asked for.
        self._maps = functools.lru_cache(maxsize=8)(self._make_maps)
        self._layer_outputs = functools.lru_cache(maxsize=8)(
            lambda layer: jax.jit(
                make_layer_forward(model, self.preprocessing, layer), out_shardings=rows
            )
        )

    def __call__(self, images: jax.typing.ArrayLike) -> tuple[jax.Array, jax.Array]:
        """Logits and features of normalised images; compiled once per batch size.

        Args:
            images: float32 [B, S, S, 3], S = `model.image_size`: RGB in [0, 1], minus the mean
                of `preprocessing`, divided by its deviation; those of most models are ImageNet's,
                (0.485, 0.456, 0.406) and (0.229, 0.224, 0.225).

        Returns:
            logits float32 [B, K] and features float32 [B, C], the mean over the last tokens.

        Raises:
            ValueError: images of another shape or dtype.
            WeightsError: the network has no head; so do `predict`, `explain` and what they call.
        """
        self.check_head()
        size = self.model.image_size
        images = images if isinstance(images, jax.Array) else np.asarray(images)
        shape_fits = images.ndim == 4 and images.shape[1:] == (size, size, 3) and len(images) > 0
        if images.dtype != np.float32 or not shape_fits:
            raise ValueError(
                f"{self.source} takes normalised images, float32 [B, {size}, {size}, 3], not "
                f"{images.dtype} {list(images.shape)}. For images as they are, use .predict; for "
                "another size, clevit_jax.load(..., image_size=S)."
            )
        return self._apply(self._params, jnp.asarray(images))

    def check_head(self) -> None:
        """Raises WeightsError unless the network has a head, by which it tells classes apart."""
        if self.headless:
            raise WeightsError(
                f"{self.source} has no head, so it tells no classes apart: train from it "
                "(--config.model.pretrained=FILE), or take its features (.features, --mode "
                "features)."
            )

    def predict(
        self, images: ImageLike | Iterable[ImageLike], *, top: int = 5, flip: bool = False
    ) -> list[Prediction]:
        """The most probable classes of each image.

        >>> model = clevit_jax.load("model")
        >>> for prediction in model.predict(["leaf.png", "other.png"], top=2):
        ...     print(prediction)
        cultivar-04 79.1 %, cultivar-08 10.1 %
        cultivar-09 74.5 %, cultivar-06 8.9 %

        Args:
            images: one or several (a list, a generator, a batch [B, H, W, 3]); each the path of a
                file, its bytes, an open file, a Pillow image, or RGB pixels, uint8 [H, W, 3], of
                any size; see `images_in.rgb`. They are resized and cropped as in evaluations.
            top: classes per image, at most.
            flip: whether the probabilities are the mean over the image and its mirror image.

        Returns:
            One prediction per image, in the order of the images. Of a model that knows coarser
            levels of its classes (a genus above species), `.levels` has the group in each.

        Raises:
            DecodeError: an image cannot be decoded; its place in the list is named.
            ValueError: pixels of another shape or dtype, no image, or `top` below 1.
            TypeError: something that is no image.
        """
        self.check_head()
        if top < 1:
            raise ValueError(f"top is {top}; it must be at least 1.")
        probabilities = [self.probabilities(part, flip=flip) for part in self._chunks(images)]
        return [self.rank(row, top) for part in probabilities for row in part]

    def rank(self, probabilities: np.ndarray, top: int) -> Prediction:
        """The prediction by probabilities of all classes, [K], with the `top` best of them."""
        self.check_head()
        return prediction.rank(probabilities, self.class_names, top, self._groupings)

    def features(
        self, images: ImageLike | Iterable[ImageLike], *, layer: str | None = None
    ) -> np.ndarray:
        """Features of images, or the tokens of one layer.

        >>> model = clevit_jax.load("model")
        >>> model.features("leaf.png").shape
        (1, 128)
        >>> model.features("leaf.png", layer="layers.2.blocks.1.norm1").shape
        (1, 4, 4, 128)

        Args:
            images: one or several, as in `predict`.
            layer: a name in `layers`; by default the mean over the last tokens, which the head
                takes.

        Returns:
            float32 [B, C]; with `layer` float32 [B, H, W, C], the tokens on the grid of the layer,
            (0, 0) at the top left of the image. Those of all images are in memory at once.

        Raises:
            DecodeError, ValueError, TypeError: see `predict`.
            ConfigError: the model has no such layer; the message names the nearest ones.
        """
        if layer is None:
            return np.concatenate([self.dispatch(part)()[1] for part in self._chunks(images)])
        layer_outputs = self._layer_outputs(layer)
        parts = [
            jax.device_get(layer_outputs(self._params, self._put(self._padded(part))))[: len(part)]
            for part in self._chunks(images)
        ]
        return np.concatenate(parts)

    @property
    def resize(self) -> int:
        """Pixels of the shorter side of an image before the crop; see `preprocessing`."""
        return self.preprocessing.resize

    @property
    def layers(self) -> dict[str, tuple[int, int, int]]:
        """Layers of the model, in the order that they run: name -> (H, W, C) of its tokens."""
        return self.model.layer_shapes()

    def explain(
        self, image: ImageLike, class_: str | int | None = None, *, name: str | None = None
    ) -> Explanation:
        """A map of where the model looks in an image for a class.

        >>> model = clevit_jax.load("model")
        >>> model.explain("leaf.png")
        Explanation('cultivar-04', 79.1 %, hires_cam:layers.2.blocks.1.norm1)
        >>> model.explain("leaf.png", class_="cultivar-08", name="rollout").overlay().size
        (64, 64)

        Args:
            image: one image, as in `predict`.
            class_: name or number of the class; by default the most probable one.
            name: name of the map, one of `inference.cam.map_names`; by default `map_name`.

        Raises:
            DecodeError, TypeError: see `predict`.
            ValueError: pixels of another shape or dtype, several images, or there is no such class
                or map.
        """
        self.check_head()
        pixels = np.stack(list(images_in.each(image, self.pixels)))
        if len(pixels) != 1:
            raise ValueError(f"explain takes one image, not {len(pixels)}; call it for each.")
        probabilities = self.probabilities(pixels)[0]
        label = int(probabilities.argmax()) if class_ is None else self.class_number(class_)
        name = name or self.map_name
        grid = self.maps(pixels, np.array([label]), (name,))[name][0]
        return Explanation(
            image=Image.fromarray(pixels[0]),
            map=explanation.enlarge(grid, self.model.image_size),
            class_name=self.class_names[label],
            probability=float(probabilities[label]),
            name=name,
        )

    @functools.cached_property
    def fingerprint(self) -> str:
        """Hexadecimal SHA-256 of what decides the features: parameters, pixels, dtype, bits."""
        dtype = jnp.dtype(self.model.dtype).name
        bits = f" {self.decoding.bits} bits" if self.decoding.bits else ""
        given = self.preprocessing
        digest = hashlib.sha256(f"{self.model.image_size} {given.resize} {dtype}{bits}".encode())
        if given != Preprocessing(given.resize):  # of others, older fingerprints stay as they are
            digest.update(json.dumps(given.to_json()).encode())
        for name, leaf in named_leaves(jax.device_get(self._params)).items():
            digest.update(name.encode())
            digest.update(np.ascontiguousarray(leaf).tobytes())
        return digest.hexdigest()

    def class_number(self, class_: str | int) -> int:
        """The column of a class in the logits, by its name or number; see `class_names.find_class`.

        Raises:
            ValueError: there is no such class, or several of this name.
        """
        self.check_head()
        if isinstance(class_, str):
            return find_class(class_, self.class_names, self.source)
        if not 0 <= class_ < len(self.class_names):
            raise ValueError(
                f"{self.source} has no class {class_}; they are 0 to {len(self.class_names) - 1}."
            )
        return int(class_)

    def pixels(self, image: ImageLike | StoredImage, name: str = "") -> np.ndarray:
        """Pixels of an image as evaluations see them; safe to call from several threads.

        Args:
            image: one image, as in `predict`.
            name: what errors call it, if it does not name itself.

        Returns:
            uint8 [S, S, 3].

        Raises:
            DecodeError, ValueError, TypeError: see `images_in.rgb`.
        """
        upright = images_in.rgb(image, name, self.decoding)
        called = images_in.call(image, name)
        return decode.centre_crop(upright, called, self.preprocessing, crop=self.model.image_size)

    def dispatch(
        self, pixels: np.ndarray, *, size: int = 0
    ) -> Callable[[], tuple[np.ndarray, np.ndarray]]:
        """Begins to compute the outputs of images, without waiting for them.

        Args:
            pixels: uint8 [B, S, S, 3].
            size: B is padded to this; by default to a power of two times the number of devices, so
                that few sizes are compiled.

        Returns:
            A function that waits, and returns logits float32 [B, K], of a headless network [B, 0],
            and features float32 [B, C].
        """
        outputs = self._outputs(self._params, self._put(self._padded(pixels, size)))

        def wait() -> tuple[np.ndarray, np.ndarray]:
            logits, features = jax.device_get(outputs)
            return logits[: len(pixels), : self.class_count], features[: len(pixels)]

        return wait

    def probabilities(self, pixels: np.ndarray, *, flip: bool = False) -> np.ndarray:
        """Probabilities of all classes.

        Args:
            pixels: uint8 [B, S, S, 3].
            flip: whether they are the mean over each image and its mirror image.

        Returns:
            float64 [B, K].
        """
        self.check_head()
        probabilities = prediction.softmax(self.dispatch(pixels)()[0])
        if not flip:
            return probabilities
        return (probabilities + prediction.softmax(self.dispatch(pixels[:, :, ::-1])()[0])) / 2

    def maps(
        self, pixels: np.ndarray, classes: np.ndarray, names: tuple[str, ...]
    ) -> dict[str, np.ndarray]:
        """Maps of where the model looks, each on the grid of its layer; see `inference.cam`.

        Args:
            pixels: uint8 [B, S, S, 3].
            classes: numbers of the classes that the maps are for, [B].
            names: names of the maps, of `cam.map_names`.

        Returns:
            name -> float32 [B, H, W].
        """
        rows = (self._padded(pixels), self._padded(classes.astype(np.int32)))
        maps = self._maps(names)(self._params, *map(self._put, rows))
        return {name: grids[: len(pixels)] for name, grids in jax.device_get(maps).items()}

    def _make_maps(self, names: tuple[str, ...]) -> Callable[..., dict[str, jax.Array]]:
        maps, normalized = cam.make_maps(self.model, names), normalizer(self.preprocessing)
        return jax.jit(lambda params, pixels, classes: maps(params, normalized(pixels), classes))

    def _put(self, rows: np.ndarray) -> jax.Array:
        return jax.device_put(rows, sharding.batch_sharding(self._mesh))

    def _padded(self, rows: np.ndarray, size: int = 0) -> np.ndarray:
        return padded(rows, size, devices=self._mesh.size)

    def _chunks(self, images: ImageLike | Iterable[ImageLike]) -> Iterator[np.ndarray]:
        """The pixels of one image or several, in parts of at most `BATCH_SIZE` images."""
        rows = images_in.each(images, self.pixels)
        part = list(itertools.islice(rows, BATCH_SIZE))
        if not part:
            raise ValueError("There is no image; give at least one.")
        while part:
            yield np.stack(part)
            part = list(itertools.islice(rows, BATCH_SIZE))

    @property
    def params(self) -> Any:
        """The parameters: nested dict of float32 arrays, of the shapes of `swin.abstract_swin`."""
        return self._params

    def __repr__(self) -> str:
        return f"Classifier({self.source!r}, {self.model})"
