"""Draws docs/wings.svg, the wings of the package as tests/test_layers.py orders them.

    python tools/draw_wings.py

To be run again when a wing is added or moved; tests/test_docs.py says so.
"""

import ast
import html
import pathlib

ROOT = pathlib.Path(__file__).resolve().parents[1]
PICTURE = ROOT / "docs" / "wings.svg"
LAYERS = ROOT / "tests" / "test_layers.py"

# What each wing is, in a line.
WINGS = {
    "errors": "ClevitError and its children: what a user can mend",
    "kernels": "Pallas kernels for TPUs",
    "system": "files, tables, logging, memory, compilation cache",
    "distributed": "processes, sharding, preemption",
    "model": "Swin, and the same through kernels",
    "views": "image transforms, the two views",
    "weights": "weights of other libraries, in and out",
    "data": "layouts, splits, decoding, batches, the audit",
    "steps": "losses, optimizer, schedule, the jitted steps",
    "recipes": "configs by name or path",
    "config": "a ConfigDict -> typed Settings; ranges, older configs",
    "runs": "setup, workdir, checkpoints, metrics",
    "convert": "the other command",
    "evaluate": "the scores of a run",
    "inference": "load, predict",
    "analysis": "predict, explain, features, report",
    "performance": "preflight, throughput",
    "train": "the loop",
    "sweeps": "several seeds, comparing runs",
    "flags": "the flags, as a table",
    "modes": "what each --mode does",
    "main": "the command",
}
# From the bottom: the last wing of each band, and what holds in it.
BANDS = {
    "steps": "parts: know no ConfigDict and no run",
    "config": "settings",
    "runs": "a run on the disk",
    "sweeps": "what is done with runs and models",
    "main": "the command",
}
WIDTH, LEFT, ROW, GAP, EDGE = 900, 200, 34, 6, 12
STYLE = """
  text { font: 13px system-ui, sans-serif; fill: #1f2328 }
  .name { font: 600 14px ui-monospace, monospace }
  .note { fill: #59636e }
  rect { fill: #f6f8fa; stroke: #d1d9e0 }
  path { stroke: #59636e; fill: none }
  @media (prefers-color-scheme: dark) {
    text { fill: #f0f6fc } .note { fill: #9198a1 } rect { fill: #151b23; stroke: #3d444d }
    path { stroke: #9198a1 }
  }"""


def read_floors(path: pathlib.Path = LAYERS) -> list[list[str]]:
    """The wings floor by floor, bottom first."""
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "FLOORS":
            return ast.literal_eval(node.value)
    raise ValueError(f"{path} has no FLOORS.")


def draw(floors: list[list[str]]) -> str:
    """The picture: a row for each floor, the lowest at the bottom, bands at the left."""
    height = 2 * EDGE + len(floors) * (ROW + GAP) - GAP
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" '
        f'width="{WIDTH}" height="{height}" role="img">',
        "<title>The wings of clevit_jax, each importing only from those below it</title>",
        f"<style>{STYLE}\n</style>",
    ]
    bottom = height - EDGE  # of the row at hand
    band = bottom
    for wings in floors:
        top = bottom - ROW
        width = (WIDTH - LEFT - EDGE - GAP * (len(wings) - 1)) / len(wings)
        for place, wing in enumerate(wings):
            lines += _draw_wing(
                wing, LEFT + place * (width + GAP), top, width, alone=len(wings) < 2
            )
        if wings[-1] in BANDS:
            lines += _draw_band(BANDS[wings[-1]], top, band)
            band = top - GAP
        bottom = top - GAP
    return "\n".join([*lines, "</svg>\n"])


def _draw_wing(wing: str, left: float, top: float, width: float, *, alone: bool) -> list[str]:
    note = left + (120 if alone else 22 + 8.5 * len(wing))
    return [
        f'<rect x="{left:g}" y="{top:g}" width="{width:g}" height="{ROW}" rx="5"/>',
        f'<text class="name" x="{left + 10:g}" y="{top + 22:g}">{wing}</text>',
        f'<text class="note" x="{note:g}" y="{top + 22:g}">{html.escape(WINGS[wing])}</text>',
    ]


def _draw_band(text: str, top: float, bottom: float) -> list[str]:
    x, middle = LEFT - 14, (top + bottom) / 2
    words, rows = text.split(), [""]
    for word in words:
        if len(rows[-1]) + len(word) > 22:
            rows.append("")
        rows[-1] = f"{rows[-1]} {word}".strip()
    first = middle - 8 * (len(rows) - 1) + 4
    return [
        f'<path d="M{x + 6} {top:g} h-6 V{bottom:g} h6"/>',
        *(
            f'<text class="note" x="{x - 8}" y="{first + 16 * i:g}" text-anchor="end">{row}</text>'
            for i, row in enumerate(rows)
        ),
    ]


if __name__ == "__main__":
    PICTURE.write_text(draw(read_floors()), encoding="utf-8")
    print(f"Wrote {PICTURE}")
