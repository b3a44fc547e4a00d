"""timm's Swin of the same shape, to be timed beside ours.

`python -m benchmarks.timm_steps` is the child of `timed_process.TimedProcess`.

Its forward pass does what ours does: it takes uint8 [B, S, S, 3] on the device and normalises it
there. Its training step is ours without the views. In it: the forward pass of both views' images
(2 B of them, drop path as in the config), two cross-entropies with label smoothing, the contrastive
loss of the released code over the 2 B features, the backward pass, the clipping of the gradient's
norm and torch's AdamW. Not in it: making the views (it is given 2 B normalised float images on the
device), the check that the gradient is finite, and the average of the parameters.
"""

import sys
import time
from collections.abc import Callable
from typing import Any

from clevit_jax.errors import first_line
from clevit_jax.performance import timed_process
from clevit_jax.performance.timed_process import OutOfMemory, Prepared

EAGER, COMPILED = "timm eager", "timm compiled"
IN_STEP = (
    "timm's step: forward of both views' images, two cross-entropies, contrastive loss, backward, "
    "clipping, AdamW; without the making of views and the finite check of ours."
)
_MEAN, _STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # ImageNet's, as in `views.transforms`


def prepare_timm_steps(request: dict[str, Any]) -> Prepared:
    """Builds timm's Swin with random parameters and warms up a step.

    Args:
        request: `work`, "training" or "inference"; `batch`; `compiled`; `platform`, "cpu" or
            "gpu"; and of `timed_steps.describe_device`: `model`, `views`, `loss`, `threads`.

    Raises:
        OutOfMemory: it does not fit.
        ValueError: torch or timm cannot be used, or torch.compile fails, in one sentence.
    """
    try:
        import torch
        from timm.models.swin_transformer import SwinTransformer
    except Exception as error:  # torchvision raises what it likes beside another torch
        raise ValueError(f"timm cannot be imported: {first_line(error)}") from error
    model, platform = request["model"], request["platform"]
    device = torch.device("cuda" if platform == "gpu" else "cpu")
    if device.type == "cuda" and not torch.cuda.is_available():
        raise ValueError("this torch sees no GPU; install one that is built for CUDA")
    torch.set_num_threads(request["threads"])
    # XLA runs float32 matmuls in TF32 on NVIDIA GPUs by default, so torch does, too.
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = True
    torch.manual_seed(0)
    module = SwinTransformer(
        img_size=model["image_size"],
        embed_dim=model["embed_dim"],
        depths=model["depths"],
        num_heads=model["num_heads"],
        window_size=model["window"],
        num_classes=model["num_classes"],
        drop_path_rate=model["drop_path"],
    ).to(device)

    def forward(images: Any) -> tuple[Any, Any]:
        features = module.forward_head(module.forward_features(images), pre_logits=True)
        return module.head.fc(features), features

    network: Any = torch.compile(forward) if request["compiled"] else forward
    make = _training if request["work"] == "training" else _inference
    facts: dict[str, Any] = {}
    try:
        step = make(torch, module, network, request, device)

        def run(steps: int) -> None:
            for _ in range(steps):
                step()
            if device.type == "cuda":
                torch.cuda.synchronize()

        facts["compile_seconds"] = None
        if request["compiled"]:
            started = time.perf_counter()
            run(1)
            facts["compile_seconds"] = time.perf_counter() - started
        facts["first_seconds"], second = timed_process.warm_up(run)
    except Exception as error:  # of torch: RuntimeError and its kinds; of the compiler, anything
        text = first_line(error)
        if "out of memory" in text.lower() or "can't allocate memory" in text:
            raise OutOfMemory(text[:200]) from error
        what = "torch.compile fails" if request["compiled"] else "timm fails"
        raise ValueError(f"{what}: {type(error).__name__}: {text[:200]}") from error
    if device.type == "cuda":
        memory = torch.cuda.max_memory_allocated(), "peak"
    else:
        memory = resident_peak(), "resident"
    facts["memory"], facts["memory_kind"] = memory
    return Prepared(run, second, facts)


def _training(
    torch: Any, module: Any, network: Any, request: dict[str, Any], device: Any
) -> Callable[[], None]:
    batch, size = request["batch"], request["model"]["image_size"]
    views, loss = request["views"], request["loss"]
    images = torch.randn(views * batch, 3, size, size, device=device)
    labels = torch.randint(request["model"]["num_classes"], (batch,), device=device)
    optimizer = torch.optim.AdamW(
        module.parameters(), lr=1e-4, weight_decay=0.05, fused=device.type == "cuda"
    )
    criterion = torch.nn.CrossEntropyLoss(label_smoothing=loss["label_smoothing"])
    module.train()

    def step() -> None:
        optimizer.zero_grad(set_to_none=True)
        with _autocast(torch, request, device):
            logits, features = network(images)
        total = sum(criterion(part, labels) for part in logits.float().split(batch))
        if loss["contrast"]:
            rows = labels.repeat(views)
            total = total + loss["contrast"] * contrast(
                torch, features.float(), rows, loss["cosine_margin"]
            )
        total.backward()
        torch.nn.utils.clip_grad_norm_(module.parameters(), loss["clip_norm"])
        optimizer.step()

    return step


def contrast(torch: Any, features: Any, labels: Any, margin: float) -> Any:
    """`steps.losses.supervised_cosine` in torch.

    Args:
        torch: the module.
        features: float32 [R, C].
        labels: int64 [R].
        margin: a cosine.

    Returns:
        A float32 scalar.
    """
    unit = torch.nn.functional.normalize(features)
    cosine = unit @ unit.T
    same = labels[:, None] == labels[None]
    return torch.where(same, 1 - cosine, (cosine - margin).clamp(min=0)).mean()


def _inference(
    torch: Any, module: Any, network: Any, request: dict[str, Any], device: Any
) -> Callable[[], None]:
    batch, size = request["batch"], request["model"]["image_size"]
    images = torch.randint(256, (batch, size, size, 3), dtype=torch.uint8, device=device)
    mean = torch.tensor(_MEAN, device=device).reshape(1, 3, 1, 1)
    std = torch.tensor(_STD, device=device).reshape(1, 3, 1, 1)
    module.eval()

    def step() -> None:
        with torch.inference_mode(), _autocast(torch, request, device):
            network((images.permute(0, 3, 1, 2).float() / 255 - mean) / std)

    return step


def _autocast(torch: Any, request: dict[str, Any], device: Any) -> Any:
    enabled = request["model"]["dtype"] == "bfloat16"
    return torch.autocast(device.type, dtype=torch.bfloat16, enabled=enabled)


def resident_peak() -> int:
    """Bytes that this process held at most, with Python, torch and all."""
    import resource  # not on every system that can time our own steps

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


if __name__ == "__main__":
    timed_process.serve_process(prepare_timm_steps)
