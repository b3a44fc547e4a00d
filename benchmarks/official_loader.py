"""The peer of the host benchmarks: torchvision's loader with the transform of the official code."""

from collections.abc import Callable, Iterator
from typing import Any

import torch

SIZE = 448
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def import_torchvision() -> Any:
    """torchvision with its transforms, also where its compiled part does not fit a CPU torch.

    Raises:
        SystemExit: it is not installed; the message says how to.
    """
    # PyPI's torchvision is built for CUDA: beside a CPU torch its operators do not load, and it
    # trips over their absence when it describes two of them. None is used in a data loader.
    library = torch.library.Library("torchvision", "FRAGMENT")
    for name in ("nms", "qnms"):
        if not hasattr(torch.ops.torchvision, name):
            library.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    try:
        import torchvision
        import torchvision.transforms
    except ImportError as error:
        raise SystemExit(
            "The peer needs torchvision; install it beside the torch that is there, as "
            "`pip install --no-deps torchvision==0.28.0` for torch 2.13."
        ) from error
    return torchvision


def two_views() -> Callable[[Any], tuple[torch.Tensor, torch.Tensor]]:
    """PIL image -> (anchor, positive), each float32 [3, 448, 448], as the official code makes them.

    Each is drawn by itself; in the positive a box is erased and the quarters are shuffled.
    """
    transforms = import_torchvision().transforms
    common = transforms.Compose(
        [
            transforms.RandomResizedCrop(SIZE, scale=(0.67, 1.0)),
            transforms.ColorJitter(brightness=0.3),
            transforms.RandomRotation(15),
            transforms.RandomHorizontalFlip(),
            transforms.ToTensor(),
            transforms.Normalize(MEAN, STD),
        ]
    )
    erase = transforms.RandomErasing(p=1.0, scale=(0.15, 0.45), ratio=(0.3, 3.3), value=0)

    def views(image: Any) -> tuple[torch.Tensor, torch.Tensor]:
        return common(image), shuffled(erase(common(image)))

    return views


def shuffled(view: torch.Tensor) -> torch.Tensor:
    """The four quarters of a view [3, S, S] in a random order."""
    quarters = [part for half in view.chunk(2, dim=1) for part in half.chunk(2, dim=2)]
    a, b, c, d = (quarters[i] for i in torch.randperm(4).tolist())
    return torch.cat([torch.cat([a, b], dim=2), torch.cat([c, d], dim=2)], dim=1)


def decoded_squares(side: int) -> Callable[[Any], torch.Tensor]:
    """PIL image -> uint8 [3, side, side]: no more than this pipeline does on the host."""
    transforms = import_torchvision().transforms
    return transforms.Compose([transforms.Resize((side, side)), transforms.PILToTensor()])


def batches(folder: str, transform: Callable[[Any], Any], batch_size: int) -> Iterator[Any]:
    """Endless shuffled batches of the images in `folder`/<class>/, loaded by this process."""
    torch.set_num_threads(1)
    images = import_torchvision().datasets.ImageFolder(folder, transform)
    loader: Any = torch.utils.data.DataLoader(images, batch_size, shuffle=True, drop_last=True)
    while True:
        yield from loader
