"""The training step of a Swin-B at 448 beside timm's on the same GPU.

    CUDA_VISIBLE_DEVICES=0 python -m benchmarks.gpu --out gpu.json

The recipe of `configs/base.py` in bfloat16: two views of an image, both cross-entropies, the
contrastive loss, clipping, AdamW. timm's `swin_base_patch4_window7_224` at an image size of 448
takes the same step under autocast, eager and by torch.compile, but makes no views
(`benchmarks/timm_steps.py`). Batches double until ours does not fit. Needs the extras `cuda` and
`peer`, with the torchvision that is built for that torch.
"""

import argparse
import importlib.metadata
import json
import pathlib
import sys
from typing import Any

from ml_collections import ConfigDict

from benchmarks.throughput import find_peer
from benchmarks.timm_steps import COMPILED, EAGER
from clevit_jax.errors import ConfigError
from clevit_jax.performance import throughput, throughput_table
from clevit_jax.performance.throughput_table import OURS, Throughput, ThroughputRow
from configs import base

TARGETS = {EAGER: 2.0, COMPILED: 1.3}  # our pairs per second over the peer's
UTILISATION = 0.4  # of a matmul in the same dtype, beside it in the same run
PACKAGES = ("jax", "jaxlib", "torch", "timm")


def make_config(*, tiny: bool) -> ConfigDict:
    """The config that is timed; a `tiny` one in float32 tries the script where there is no GPU."""
    config = base.get_config()
    config.model.num_classes = 80  # of Cotton80
    config.model.dtype = "bfloat16"
    if tiny:
        config.model.dtype = "float32"
        config.image_size, config.data.resize, config.eval.resize = 64, 80, 72
        config.model.window = 4
        config.model.embed_dim, config.model.depths, config.model.num_heads = 16, (1, 1), (1, 2)
    return config


def summarise(result: Throughput) -> dict[str, Any]:
    """Figures that the targets are about.

    Returns:
        `best`: for each implementation its most pairs per second over all batch sizes, with that
        `batch`, and `bytes` of memory and `utilisation` there. `same_batch`: by peer, the ratio at
        the largest batch that both ran, with least and most of the rounds. `ratios`: by peer, ours
        over it, each at its own best batch. `met`: which targets are.
    """
    best: dict[str, ThroughputRow] = {}
    for row in result.rows:
        if row.seconds and (
            row.name not in best or row.images_per_second > best[row.name].images_per_second
        ):
            best[row.name] = row
    facts: dict[str, Any] = {
        "best": {
            name: {
                "pairs_per_second": row.images_per_second,
                "batch": row.batch,
                "bytes": row.memory,
                "utilisation": result.utilisation(row),
            }
            for name, row in best.items()
        },
        "same_batch": {},
        "ratios": {},
        "met": {},
    }
    if OURS not in best:
        return facts
    used = result.utilisation(best[OURS])
    facts["met"]["utilisation"] = used is not None and used >= UTILISATION
    for peer, target in TARGETS.items():
        for row in result.rows:  # batches grow, so the last one stays
            if row.name == peer and (ratio := result.ratio(row)):
                median, least, most = ratio
                facts["same_batch"][peer] = {
                    "batch": row.batch,
                    "median": median,
                    "lowest": least,
                    "highest": most,
                }
        if peer in best:
            ratio_of_best = best[OURS].images_per_second / best[peer].images_per_second
            facts["ratios"][peer] = ratio_of_best
            facts["met"][peer] = ratio_of_best >= target
    return facts


def to_text(facts: dict[str, Any]) -> str:
    """A line per implementation and one per target."""
    lines = ["Each at its best batch:"]
    for name, best in facts["best"].items():
        used = (
            "" if best["utilisation"] is None else f", {100 * best['utilisation']:.1f} % utilised"
        )
        lines.append(
            f"  {name:<14}{best['pairs_per_second']:10.2f} pairs/s at a batch of {best['batch']}, "
            f"{best['bytes'] / 2**30:.2f} GiB{used}"
        )
    for peer, ratio in facts["ratios"].items():
        said = "met" if facts["met"][peer] else "missed"
        same = facts["same_batch"].get(peer)
        beside = (
            f"; at a batch of {same['batch']} {same['median']:.2f} "
            f"({same['lowest']:.2f} to {same['highest']:.2f})"
            if same
            else ""
        )
        lines.append(f"{OURS} / {peer}: {ratio:.2f}, target {TARGETS[peer]} {said}{beside}")
    if "utilisation" in facts["met"]:
        said = "met" if facts["met"]["utilisation"] else "missed"
        lines.append(f"Utilisation: target {100 * UTILISATION:.0f} % {said}")
    return "\n".join(lines)


def versions() -> dict[str, str]:
    """Versions of the packages that are compared."""
    return {package: importlib.metadata.version(package) for package in PACKAGES}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--out", type=pathlib.Path, help="JSON file for all that was measured")
    parser.add_argument("--batch_sizes", help="such as 8,16,32; else doubled while they fit")
    parser.add_argument("--tiny", action="store_true", help="a tiny Swin, to try the script")
    args = parser.parse_args()
    try:
        sizes = throughput.read_batch_sizes(args.batch_sizes and args.batch_sizes.split(","))
        if args.out and not args.out.parent.is_dir():
            raise ConfigError(f"The folder of --out {args.out} does not exist; create it first.")
        config = make_config(tiny=args.tiny)
        result = throughput.measure_in_process(
            config, batch_sizes=sizes, peer=find_peer("timm"), works=["training"]
        )
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    summary = summarise(result)
    print(throughput_table.throughput_text(result), to_text(summary), sep="\n\n")
    if args.out:
        measured = json.loads(throughput_table.throughput_json(result))
        facts = {"command": sys.argv, "versions": versions(), "summary": summary, **measured}
        args.out.write_text(json.dumps(facts, indent=2) + "\n", encoding="utf-8")
    return 0 if OURS in summary["best"] else 1


if __name__ == "__main__":
    sys.exit(main())
