"""`report.html`: a comparison with its plots, clients, models and configuration in one file.

The file needs no network: plots are SVG in it, and a few lines of script sort the table of clients.
"""

from __future__ import annotations

import base64
import dataclasses
import html
import io
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jinja2
import markdown  # type: ignore[import-untyped]
import matplotlib
import numpy as np
import pandas as pd
from markupsafe import Markup
from matplotlib.figure import Figure

from tff_fedmeta.config import ExperimentConfig, hyperparameters
from tff_fedmeta.experiment import comparison, comparison_words, plots, results, run_directory
from tff_fedmeta.experiment.results import Results

FILE = "report.html"
EXAMPLE = "example_client.png"
_SIZE = (5.2, 4.0)  # of a plot, in inches: its text stays legible on a phone
_MANY_POINTS = 1000  # beyond which an image of the points is smaller than the points


class Models(NamedTuple):
    """Where trained models are.

    Attributes:
      name: What the report calls the algorithm.
      directory: Where its `model.keras` and `metadata.json` are.
    """

    name: str
    directory: Path


def write(
    found: Results,
    text: str,
    output_dir: Path,
    models: Sequence[Models],
    configurations: Mapping[str, ExperimentConfig],
) -> None:
    """Writes the report of a comparison.

    Args:
      found: The results.
      text: The comparison in Markdown; the plots stand before its second heading.
      output_dir: Where the file goes; models are named relative to it where they lie below it.
      models: Those to explain; one without `metadata.json` is left out.
      configurations: What led to the results, by the name to show.
    """
    summary, mark, details = text.partition("\n## ")
    picture = output_dir / EXAMPLE
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent / "templates"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
    )
    page = environment.get_template(FILE).render(
        title=summary.splitlines()[0].lstrip("# "),
        summary=_html(summary),
        details=_html(mark + details),
        plots=[_svg(panel, found) for panel in plots.panels(found)],
        example=base64.b64encode(picture.read_bytes()).decode() if picture.exists() else None,
        clients=_clients(found),
        clients_text=_clients_text(found),
        models=[usage(m, output_dir) for m in models if (m.directory / "metadata.json").exists()],
        configurations={name: _settings(config) for name, config in configurations.items()},
    )
    run_directory.write_text(output_dir / FILE, page)


def _html(text: str) -> Markup:
    """Renders Markdown; what looks like HTML in it is text."""
    rendered = markdown.markdown(html.escape(text, quote=False), extensions=["tables"])
    return Markup(
        rendered.replace("<table>", '<div class="wide"><table>').replace(
            "</table>", "</table></div>"
        )
    )


def _svg(panel: plots.Panel, found: Results) -> Markup:
    figure = Figure(figsize=_SIZE, layout="constrained")
    axes = figure.subplots()
    panel(axes, found)
    axes.grid(alpha=0.3)
    axes.title.set_fontsize(10)
    for points in axes.collections:
        points.set_rasterized(len(np.asarray(points.get_offsets())) > _MANY_POINTS)
    image = io.StringIO()
    # The names within are the same at every writing, and differ between the plots of a page.
    style = {"svg.hashsalt": panel.__name__, "svg.fonttype": "none"}
    with matplotlib.rc_context(style):
        figure.savefig(image, format="svg", dpi=120, metadata={"Date": None, "Creator": None})
    text = image.getvalue()
    return Markup(text[text.index("<svg") :])


class _Cell(NamedTuple):
    text: str
    value: Any  # to sort by; "" is the last, in both directions


def _clients(found: Results) -> dict[str, Any]:
    """Returns the columns and rows of the table of clients; figures over all repetitions."""
    unit = comparison_words.Unit(found.task.metric)
    first = next(iter(found.adapted.values()))[0]["clients"]
    sizes = pd.DataFrame(first).set_index("client_id")[["num_support", "num_query"]]
    columns = ["client", "support", "query"]
    values = {}
    for name, runs in found.adapted.items():
        values[name] = comparison.client_values(runs, found.task.metric).reindex(sizes.index)
        columns += [f"{name} before", "after"]
    rows = []
    for client, (support, query) in zip(sizes.index, sizes.to_numpy().tolist()):
        row = [_Cell(client, client), _Cell(f"{support:,}", support), _Cell(f"{query:,}", query)]
        for frame in values.values():
            row += [_figure(value, unit) for value in frame.loc[client, ["before", "after"]]]
        rows.append(row)
    return {"columns": columns, "rows": rows}


def _figure(value: float, unit: comparison_words.Unit) -> _Cell:
    return _Cell("diverged", "") if math.isnan(value) else _Cell(unit.number(value), value)


def _clients_text(found: Results) -> str:
    metric = found.task.metric
    percent = ", in %" if comparison_words.Unit(metric).is_share else ""
    return f"{metric.capitalize()} on its query, before adapting on its support and after{percent}."


def _settings(config: ExperimentConfig) -> dict[str, str]:
    values = {**dataclasses.asdict(config), "config_hash": config.hash}
    return {name: _in_words(value) for name, value in values.items() if value not in (None, {}, ())}


def _in_words(value: Any) -> str:
    if isinstance(value, Mapping):
        return "; ".join(f"{name}: {_in_words(each)}" for name, each in value.items())
    if isinstance(value, (list, tuple)):
        return ", ".join(map(_in_words, value))
    return f"{value:g}" if isinstance(value, float) else str(value)


def usage(model: Models, output_dir: Path) -> dict[str, str]:
    """Returns how to use a trained model: its "name", a sentence "text", and the "code"."""
    how = json.loads((model.directory / "metadata.json").read_text())["adaptation"]
    home = model.directory
    if output_dir in home.parents:
        home = home.relative_to(output_dir)
    others = sorted(path.name for path in model.directory.iterdir() if path.name not in _EXPLAINED)
    text = (
        f"Adapting to a new client takes {how['steps']} steps of {how['batch_size']} examples at "
    )
    text += f"the rate {results.rate_in_words(how)}"
    text += f" and moves {how['adapts']}." if "adapts" in how else "."
    if others:
        text += f" Beside it: {', '.join(others)}."
    lines = [
        "import tensorflow as tf",
        "",
        f'model = tf.keras.models.load_model("{home / "model.keras"}")',
    ]
    if not how["steps"]:  # adapting did not help the validation clients
        return {"name": model.name, "text": text, "code": "\n".join([*lines, "model.predict(x)"])}
    lines += [
        "# x [n, ...], y [n, ...]: the new client's examples",
        "few = tf.data.Dataset.from_tensor_slices((x, y)).shuffle(1000).repeat()",
        f"few = few.batch({how['batch_size']}).take({how['steps']})",
    ]
    if "learned_rates" in how or "proximal_strength" in how:
        lines += _own_steps(how, home)
    else:
        lines.append("model.fit(few)")
    return {"name": model.name, "text": text, "code": "\n".join([*lines, "model.predict(x)"])}


_EXPLAINED = ("model.keras", "metadata.json", "adaptation_rates.npz")


def _own_steps(how: Mapping[str, Any], home: Path) -> list[str]:
    """Returns steps that no optimizer of Keras makes, as code."""
    steps = "for batch_x, batch_y in few:"
    if "learned_rates" in how:
        file = home / how["learned_rates"]
        begin = ["import numpy as np", f'rates = list(np.load("{file}").values())']
        pair, step = "rates", "rate * gradient"
        if how.get("inner_rates") == hyperparameters.PER_STEP_AND_LAYER:
            steps = "for k, (batch_x, batch_y) in enumerate(few):"
            step = "rate[min(k, len(rate) - 1)] * gradient"
    else:
        begin = ["starts = [tf.identity(variable) for variable in model.trainable_variables]"]
        pull = f"{how['proximal_strength']:g} * (variable - start)"
        pair, step = "starts", f"{how['inner_learning_rate']:g} * (gradient + {pull})"
    return [
        *begin,
        steps,
        "    with tf.GradientTape() as tape:",
        "        value = loss(batch_y, model(batch_x, training=True))  # the loss of the training",
        "    gradients = tape.gradient(value, model.trainable_variables)",
        f"    every = zip(model.trainable_variables, {pair}, gradients)",
        f"    for variable, {pair[:-1]}, gradient in every:",
        f"        variable.assign_sub({step})",
    ]
