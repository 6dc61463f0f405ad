"""Writes one HTML page that needs no network: interactive plots, figures, tables, findings, gaps, configurations."""

import base64
import dataclasses
import html
import importlib.resources
import json
import math
import string
import urllib.parse
from collections.abc import Mapping, Sequence
from typing import Any

from tf_pruneinit.reporting import interactive, signs
from tf_pruneinit.reporting.collect import Gap, Run
from tf_pruneinit.reporting.figure_data import Shown
from tf_pruneinit.reporting.findings import Finding
from tf_pruneinit.reporting.published import Reference
from tf_pruneinit.reporting.series import Series, View, percent
from tf_pruneinit.reporting.signs import Row, Sign
from tf_pruneinit.reporting.tables import FORMATS, Table
from tf_pruneinit.runtime.console import counted

# A `string.Template`; a dollar of its own script would have to be doubled.
_TEMPLATE = importlib.resources.files(__package__) / "page.html"
# More gaps are folded: a person does not read them, and a browser takes its time to lay them out.
_GAPS_AT_ONCE = 200


@dataclasses.dataclass(frozen=True)
class Image:
    """A figure: `name` of its files without their ending, its caption, and its PNG."""

    name: str
    caption: str
    png: bytes


def write(
    views: Sequence[View],
    found: Mapping[str, Sequence[Finding]],
    tables: Mapping[str, Sequence[Table]],
    pictures: Mapping[str, Sequence[Image]],
    gaps: Sequence[Gap],
    rows: Sequence[Reference],
    several: Sequence[Shown] = (Shown(),),
) -> str:
    """Returns the page.

    Args:
      views: what is shown, one at a time.
      found: slug of a view -> its findings.
      tables: slug of a view, or "" for all views together -> tables.
      pictures: slug of a view -> its figures.
      gaps: what is missing.
      rows: published results.
      several: what plots at one sparsity show.
    """
    from plotly.offline import get_plotlyjs

    names = ("slug", "name", "dataset", "model", "note")
    data = {
        "views": [
            {name: getattr(view, name) for name in names} | {"plots": interactive.every(view, rows, several)} for view in views
        ],
        "runs": configurations([run for view in views for run in view.runs]),
    }
    sections = (_section(view, found[view.slug], tables[view.slug], pictures[view.slug]) for view in views)
    return string.Template(_TEMPLATE.read_text("utf-8")).substitute(
        plotly=get_plotlyjs(),
        data=json.dumps(_finite(data), separators=(",", ":")).replace("</", "<\\/"),
        summary=html.escape(f"{summary(views)}; {counted(len(gaps), 'gap')}."),
        sections="".join(sections),
        general="".join(map(_table, tables[""])),
        gaps=_gaps(gaps),
        hidden="" if views else "hidden",
    )


def summary(views: Sequence[View]) -> str:
    """Returns how many runs, networks and recipes a report has."""
    networks = len({(view.dataset, view.model) for view in views})
    recipes = f", by {counted(len(views), 'recipe')}" if len(views) > networks else ""
    runs = sum(len(view.runs) for view in views)
    return f"{counted(runs, 'complete run')} of {counted(networks, 'network')}{recipes}"


def configurations(runs: Sequence[Run]) -> dict[str, Any]:
    """Returns the configurations of runs in few bytes.

    Returns:
      `names` of hyper-parameters; `values`, of each its different ones; and `rows`, for each run its path, a line that says
      what it is, and the index of each value, None for a hyperparameter that the run does not have.
    """
    found: dict[str, dict[Any, int]] = {}
    indices = []
    for run in runs:
        values = {**run.config.hyperparameters(), "test accuracy": f"{run.accuracy:.4%}"}
        values |= {"dataset note": run.note} if run.note else {}
        own = {}
        for name, value in values.items():
            known = found.setdefault(name, {})
            own[name] = known.setdefault(value, len(known))
        indices.append(own)
    rows = [[run.path, _said(run), *(own.get(name) for name in found)] for run, own in zip(runs, indices, strict=True)]
    return {"names": list(found), "values": [list(values) for values in found.values()], "rows": rows}


def _said(run: Run) -> str:
    """What a run is, in a line: `SNIP, invert, 90 %, seed 1: 87.31 %`."""
    label = Series(run.method, run.variant, run.ablation).label
    pruned = f", {percent(run.sparsity)}" if run.config.prune else ""
    return f"{label}{pruned}, seed {run.seed}: {100 * run.accuracy:.2f} %"


def _finite(value: Any) -> Any:
    """A value of JSON, which has no NaN and no infinity."""
    if isinstance(value, dict):
        return {key: _finite(one) for key, one in value.items()}
    if isinstance(value, list):
        return [_finite(one) for one in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _section(view: View, found: Sequence[Finding], tables: Sequence[Table], pictures: Sequence[Image]) -> str:
    notes = "".join(f'<p class="note">{html.escape(text)}</p>' for text in (view.note, view.dead) if text)
    verdicts = "".join(
        f"<li><b>{one.name}</b> {html.escape(one.statement)} "
        f'<span class="verdict {one.verdict.replace(" ", "-")}">{one.verdict}</span>'
        f"<br><small>{html.escape(one.sentence)}</small></li>"
        for one in found
    )
    drawn = "".join(_picture(one, view.note) for one in pictures)
    several = "".join(_table(one) for one in tables if not one.name.startswith("findings"))
    return (
        f'<section class="view" data-view="{view.slug}" hidden>'
        f"<h2>Findings: {html.escape(view.name)}</h2>{notes}<p>{html.escape(signs.legend(view.margin))}</p><ul>{verdicts}</ul>"
        f'<h2>Figures</h2><div class="figures">{drawn}</div><h2>Tables</h2>{several}</section>'
    )


def _signs(rows: Sequence[Row]) -> str:
    """The signs of a finding: a row a claim, a column a sparsity; the pointer shows difference and interval."""
    levels = sorted({sparsity for row in rows for sparsity in row.signs})
    if not levels:
        return ""
    head = "".join(f"<th>{percent(sparsity).removesuffix(' %')}</th>" for sparsity in levels)
    lines = []
    for row in rows:
        cells = "".join(_sign(row.signs.get(sparsity)) for sparsity in levels)
        lines.append(f"<tr><td>{html.escape(row.title)}</td>{cells}</tr>")
    body = f"<thead><tr><th>sparsity (%)</th>{head}</tr></thead><tbody>{''.join(lines)}</tbody>"
    return f'<div class="wide"><table class="signs">{body}</table></div>'


def _sign(one: Sign | None) -> str:
    if one is None:
        return "<td></td>"
    interval = f"{100 * one.low:+.2f} to {100 * one.high:+.2f}; {one.estimate.seeds} seeds"
    return f'<td title="{100 * one.estimate.difference:+.2f} points ({interval})">{one.sign}</td>'


def _picture(one: Image, note: str) -> str:
    caption = html.escape(f"{one.caption} {note}".strip())
    image = f'<img alt="{html.escape(one.caption)}" src="data:image/png;base64,{base64.b64encode(one.png).decode()}">'
    links = _links({"PDF": f"figures/{one.name}.pdf", "PNG": f"figures/{one.name}.png"})
    return f'<figure><div class="wide">{image}</div><figcaption>{caption} {links}</figcaption></figure>'


def _links(files: Mapping[str, str]) -> str:
    return " ".join(f'<a href="{html.escape(urllib.parse.quote(path))}">{name}</a>' for name, path in files.items())


def _table(table: Table) -> str:
    head = "".join(f"<th>{html.escape(name)}</th>" for name in table.head)
    cells = [[(html.escape(cell.text), cell.bold) for cell in row] for row in table.rows]
    rows = ("".join(f"<td><b>{text}</b></td>" if bold else f"<td>{text}</td>" for text, bold in row) for row in cells)
    body = f"<table><thead><tr>{head}</tr></thead><tbody>{''.join(f'<tr>{row}</tr>' for row in rows)}</tbody></table>"
    links = _links({kind.upper(): f"tables/{table.name}.{kind}" for kind in FORMATS})
    caption = html.escape(table.caption)
    return f'<figure class="table"><div class="wide">{body}</div><figcaption>{caption} {links}</figcaption></figure>'


def _gaps(gaps: Sequence[Gap]) -> str:
    if not gaps:
        return "<p>Nothing is missing.</p>"
    lines = [f"<li>{html.escape(str(gap))}</li>" for gap in gaps]
    more = lines[_GAPS_AT_ONCE:]
    rest = f"<details><summary>{len(more):,} more</summary><ul>{''.join(more)}</ul></details>" if more else ""
    return f"<ul>{''.join(lines[:_GAPS_AT_ONCE])}</ul>{rest}"
