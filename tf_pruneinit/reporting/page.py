"""Writes one HTML page that works without a network: interactive plots, figures, tables, configurations, gaps."""

import base64
import html
import json
from collections.abc import Mapping, Sequence
from typing import Any

from tf_pruneinit.reporting import figures, interactive
from tf_pruneinit.reporting.collect import Gap, Trial
from tf_pruneinit.reporting.findings import Finding
from tf_pruneinit.reporting.published import Reference
from tf_pruneinit.reporting.series import View
from tf_pruneinit.reporting.tables import Table
from tf_pruneinit.runtime.console import counted

# Named in the list only: this many lines are more than a person reads, and a browser shows them all the same.
_GAPS_AT_ONCE = 200


def table(one: Table) -> str:
    """Returns a table as HTML."""
    head = "".join(f"<th>{html.escape(text)}</th>" for text in one.head)
    rows = []
    for row in one.rows:
        cells = (
            f"<td><b>{html.escape(cell.text)}</b></td>" if cell.bold else f"<td>{html.escape(cell.text)}</td>" for cell in row
        )
        rows.append(f"<tr>{''.join(cells)}</tr>")
    body = f"<table><thead><tr>{head}</tr></thead><tbody>{''.join(rows)}</tbody></table>"
    return f'<figure class="table"><div class="wide">{body}</div><figcaption>{html.escape(one.caption)}</figcaption></figure>'


def configurations(trials: Sequence[Trial]) -> dict[str, Any]:
    """Returns all that each run is, in few bytes: `names` of hyper-parameters, `values` of each, and a row of indices a run."""
    found: dict[str, dict[Any, int]] = {}
    indices = []
    for trial in trials:
        own = {}
        values = {**trial.config.hyperparameters(), "test accuracy": f"{trial.accuracy:.4%}"}
        for name, value in {**values, **({"dataset note": trial.note} if trial.note else {})}.items():
            known = found.setdefault(name, {})
            own[name] = known.setdefault(value, len(known))
        indices.append(own)
    # Dense training has no options of pruning: there its rows have null.
    rows = [[trial.path, *(own.get(name) for name in found)] for trial, own in zip(trials, indices, strict=True)]
    return {"names": list(found), "values": [list(values) for values in found.values()], "rows": rows}


def summary(views: Sequence[View]) -> str:
    """Returns how much a report is of."""
    networks = len({(view.dataset, view.model) for view in views})
    recipes = f", by {counted(len(views), 'recipe')}" if len(views) > networks else ""
    runs = sum(len(view.trials) for view in views)
    return f"{counted(runs, 'complete run')} of {counted(networks, 'network')}{recipes}"


def write(
    views: Sequence[View],
    found: Mapping[str, Sequence[Finding]],
    tables: Mapping[str, Sequence[Table]],
    pictures: Mapping[str, Mapping[str, bytes]],
    gaps: Sequence[Gap],
    rows: Sequence[Reference],
) -> str:
    """Returns the page.

    Args:
      views: what is shown, one at a time.
      found: slug of a view -> its findings.
      tables: slug, "" for what is of all -> tables.
      pictures: slug -> name of a figure -> PNG.
      gaps: what is missing.
      rows: published results.
    """
    from plotly.offline import get_plotlyjs

    trials = [trial for view in views for trial in view.trials]
    data = {
        "views": [
            {
                "slug": v.slug,
                "name": v.name,
                "dataset": v.dataset,
                "model": v.model,
                "note": v.note,
                "plots": interactive.every(v, rows),
            }
            for v in views
        ],
        "runs": configurations(trials),
    }
    sections = "".join(_section(view, found[view.slug], tables[view.slug], pictures[view.slug]) for view in views)
    fields = {
        "@PLOTLY@": get_plotlyjs(),
        "@DATA@": json.dumps(_finite(data), separators=(",", ":")).replace("</", "<\\/"),
        "@SUMMARY@": html.escape(f"{summary(views)}; {counted(len(gaps), 'gap')}."),
        "@SECTIONS@": sections,
        "@GENERAL@": "".join(table(one) for one in tables[""]),
        "@GAPS@": _gaps(gaps),
        "@HIDDEN@": "" if views else "hidden",
    }
    page = _PAGE
    for name, text in fields.items():
        page = page.replace(name, text, 1)
    return page


def _finite(value: Any) -> Any:
    """JSON has no NaN."""
    if isinstance(value, dict):
        return {key: _finite(one) for key, one in value.items()}
    if isinstance(value, list):
        return [_finite(one) for one in value]
    return None if isinstance(value, float) and value != value else value


def _section(view: View, found: Sequence[Finding], tables: Sequence[Table], pictures: Mapping[str, bytes]) -> str:
    note = "".join(f'<p class="note">{html.escape(text)}</p>' for text in (view.note, view.dead) if text)
    verdicts = "".join(
        f"<li><b>{one.name}</b> {html.escape(one.statement)} "
        f'<span class="verdict {one.verdict.replace(" ", "-")}">{one.verdict}</span>'
        f"<br><small>{html.escape(one.sentence)}</small></li>"
        for one in found
    )
    drawn = "".join(_picture(name, png, view.note) for name, png in pictures.items())
    several = "".join(table(one) for one in tables if not one.name.startswith("findings"))
    return (
        f'<section class="view" data-view="{view.slug}" hidden>'
        f"<h2>Findings: {html.escape(view.name)}</h2>{note}<ul>{verdicts}</ul>"
        f'<h2>Figures</h2><div class="figures">{drawn}</div><h2>Tables</h2>{several}</section>'
    )


def _picture(name: str, png: bytes, note: str) -> str:
    caption = html.escape(figures.FIGURES[name].caption if name in figures.FIGURES else figures.PUBLISHED)
    said = f"{caption} {html.escape(note)}".strip()
    image = f'<img alt="{caption}" src="data:image/png;base64,{base64.b64encode(png).decode()}">'
    return f"<figure>{image}<figcaption>{said}</figcaption></figure>"


def _gaps(gaps: Sequence[Gap]) -> str:
    if not gaps:
        return "<p>Nothing is missing.</p>"
    lines = [f"<li>{html.escape(str(gap))}</li>" for gap in gaps]
    more = lines[_GAPS_AT_ONCE:]
    rest = f"<details><summary>{len(more):,} more</summary><ul>{''.join(more)}</ul></details>" if more else ""
    return f"<ul>{''.join(lines[:_GAPS_AT_ONCE])}</ul>{rest}"


_PAGE = """<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>Pruning at initialization: report</title><link rel="icon" href="data:,">
<style>
body { font: 15px/1.45 system-ui, sans-serif; color: #1a1a1a; max-width: 1200px; margin: 0 auto; padding: 0 1.2em 4em; }
h1 { font-size: 1.5em; margin: .8em 0 .2em; } h2 { font-size: 1.15em; margin: 1.6em 0 .4em; }
#controls { position: sticky; top: 0; background: #fff; padding: .6em 0; border-bottom: 1px solid #ccc; z-index: 2; }
#controls label { margin-right: 1.2em; } select, input { font: inherit; padding: .15em .3em; max-width: 30em; }
.note { background: #fff6d6; border-left: 4px solid #E69F00; padding: .4em .8em; }
.plot { height: 460px; } .figures { display: flex; flex-wrap: wrap; gap: 1em; } .figures figure { margin: 0; width: 330px; }
.figures img { width: 100%; } figcaption { font-size: .85em; color: #444; } figure.table { margin: 1em 0 1.6em; }
.wide { overflow-x: auto; } table { border-collapse: collapse; font-size: .85em; white-space: nowrap; }
th { border-bottom: 2px solid #888; }
th, td { text-align: left; padding: .2em .7em; border-bottom: 1px solid #ddd; vertical-align: top; }
.verdict { border-radius: 3px; padding: 0 .4em; color: #fff; background: #666; }
.verdict.holds { background: #00674c; } .verdict.does-not-hold { background: #a33b00; }
details { margin: .15em 0; } details table { margin: .3em 0 .6em 1.2em; } li { margin: .25em 0; }
</style></head><body>
<h1>Pruning at initialization: report</h1><p>@SUMMARY@</p>
<div id="controls" @HIDDEN@><label>Dataset <select id="dataset"></select></label>
<label>Network <select id="model"></select></label>
<label>Recipe <select id="recipe"></select></label></div>
<p id="note" class="note" hidden></p><div id="plots"></div>
@SECTIONS@
<h2>What each network compares</h2>@GENERAL@
<h2>What is missing</h2><div id="gaps">@GAPS@</div>
<h2>Configurations</h2><p><input id="search" type="search" placeholder="words, as snip sparsity=0.9 seed=1" size="40">
<span id="count"></span></p><div id="runs"></div>
<script>@PLOTLY@</script>
<script type="application/json" id="data">@DATA@</script>
<script>
"use strict";
const data = JSON.parse(document.getElementById("data").textContent);
const element = (id) => document.getElementById(id);
const unique = (values) => [...new Set(values)];
function fill(select, values, names) {
  const kept = select.value;
  select.replaceChildren(...values.map((value, i) => new Option(names ? names[i] : value, value)));
  if (values.includes(kept)) select.value = kept;
}
function pick() {
  const ofDataset = data.views.filter((view) => view.dataset === element("dataset").value);
  fill(element("model"), unique(ofDataset.map((view) => view.model)));
  const ofModel = ofDataset.filter((view) => view.model === element("model").value);
  fill(element("recipe"), ofModel.map((view) => view.slug), ofModel.map((view) => view.name));
  show(data.views.find((view) => view.slug === element("recipe").value));
}
function show(view) {
  element("note").hidden = !view.note;
  element("note").textContent = view.note;
  for (const section of document.querySelectorAll("section.view")) section.hidden = section.dataset.view !== view.slug;
  for (const old of document.querySelectorAll(".plot")) Plotly.purge(old);
  element("plots").replaceChildren();
  for (const [title, plot] of Object.entries(view.plots)) {
    const heading = document.createElement("h2"), place = document.createElement("div");
    heading.textContent = title;
    place.className = "plot";
    element("plots").append(heading, place);
    Plotly.newPlot(place, structuredClone(plot.data), structuredClone(plot.layout), {responsive: true, displaylogo: false});
  }
}
const runs = data.runs;
const words = runs.rows.map((row) => row[0] + " " + runs.names.map((name, i) =>
  row[i + 1] === null ? "" : name + "=" + runs.values[i][row[i + 1]]).join(" "));
function search() {
  const asked = element("search").value.toLowerCase().split(/\\s+/).filter(Boolean);
  const found = [];
  words.forEach((text, i) => { if (asked.every((word) => text.toLowerCase().includes(word))) found.push(i); });
  const noun = found.length === 1 ? " run" : " runs";
  element("count").textContent = found.length + noun + (found.length > 200 ? ", the first 200 are shown" : "");
  element("runs").replaceChildren(...found.slice(0, 200).map((i) => {
    const details = document.createElement("details"), summary = document.createElement("summary");
    summary.textContent = runs.rows[i][0];
    details.append(summary);
    details.addEventListener("toggle", () => {
      if (details.children.length > 1) return;
      const table = document.createElement("table");
      runs.names.forEach((name, k) => {
        if (runs.rows[i][k + 1] === null) return;
        const row = table.insertRow();
        row.insertCell().textContent = name;
        row.insertCell().textContent = runs.values[k][runs.rows[i][k + 1]];
      });
      details.append(table);
    });
    return details;
  }));
}
if (data.views.length) {
  fill(element("dataset"), unique(data.views.map((view) => view.dataset)));
  for (const id of ["dataset", "model", "recipe"]) element(id).addEventListener("change", pick);
  pick();
}
element("search").addEventListener("input", search);
search();
</script></body></html>
"""
