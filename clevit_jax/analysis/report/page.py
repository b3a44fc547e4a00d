"""The page of a report: one HTML file that needs no network and no other file."""

import dataclasses
import functools
import importlib.resources
import json
from typing import Any

import jinja2
from markupsafe import Markup

from clevit_jax.analysis.report.content import Content
from clevit_jax.analysis.report.groups import shared_groups

_MAX_PAIRS = 100  # as many of the most confused pairs are listed


def render_page(content: Content) -> str:
    """The page as HTML. Names are escaped: as HTML by Jinja, in the scripts' data as JSON."""
    pairs = content.confusion.pairs() if content.confusion else []
    shared = shared_groups(pairs[:_MAX_PAIRS], content.levels)
    scripts = ("tables.js", "charts.js", *(["matrix.js"] if content.confusion else []))
    return _template().render(
        content=content,
        data=_data(content),
        pairs=list(zip(pairs[:_MAX_PAIRS], shared, strict=True)),
        levels=_scored_levels(content),
        number_of_pairs=len(pairs),
        style=Markup(_asset("style.css")),
        scripts=[Markup(_asset(name)) for name in scripts],
    )


def _scored_levels(content: Content) -> list[str]:
    """Names of the levels that any of the scores is on."""
    return list(dict.fromkeys(name for row in content.scores for name in row.evaluation.levels))


def _data(content: Content) -> dict[str, Any]:
    """The data that the scripts draw."""
    confusion = content.confusion
    return {
        "classes": list(content.class_names),
        "confusion": confusion.cells.tolist() if confusion else [],
        "order": confusion.order() if confusion else [],
        "charts": [dataclasses.asdict(chart) for chart in content.charts],
        "embedding": dataclasses.asdict(content.embedding) if content.embedding else None,
    }


def _percent(share: float | None, digits: int = 2) -> str:
    return "-" if share is None else f"{100 * share:.{digits}f} %"


def _dumps(value: Any, **options: Any) -> str:
    return json.dumps(value, **{**options, "separators": (",", ":")})


@functools.cache
def _template() -> jinja2.Template:
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.policies["json.dumps_function"] = _dumps
    environment.filters["percent"] = _percent
    return environment.from_string(_asset("page.html"))


def _asset(name: str) -> str:
    folder = importlib.resources.files("clevit_jax.analysis.report") / "assets"
    return (folder / name).read_text(encoding="utf-8")
