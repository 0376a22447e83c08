"""What a table's numbers mean, in words and names, for whoever uses the exported model."""

from __future__ import annotations

from collections.abc import Sequence

from datasets.tables import channels as channels_of
from datasets.tables import columns
from datasets.task import Meaning


def of_table(
    shape: Sequence[int],
    features: Sequence[columns.Fitted],
    label: columns.Fitted,
    prepare: str,
    weight_column: str | None = None,
) -> Meaning:
    """Returns the meaning of a table's inputs and outputs.

    Args:
      shape: Of one example: [channels], or [rows, channels].
      features: Of `columns.fit_feature`.
      label: Of `labels.fit`.
      prepare: The name of the file that makes inputs of rows.
      weight_column: Says how much an example counts; its weight stands beside y.
    """
    rows = "a row" if len(shape) == 1 else f"{shape[0]} consecutive rows"
    inputs = f"{rows} of the table as {prepare} makes it, in the units of the file"
    channels = channels_of.names(features)
    name = label["column"]
    beside = ""
    if weight_column is not None:
        beside = f"; beside it how much the example counts: {weight_column!r} divided by its mean"
    if "classes" in label:
        return Meaning(
            inputs=inputs,
            target=f"the place of {name!r} in the list of classes, from 0{beside}",
            output="a logit for each class",
            channels=channels,
            classes=[str(value) for value in label["classes"]],
        )
    return Meaning(
        inputs=inputs,
        target=f"{name!r}, less the mean, divided by the scale{beside}",
        output=f"{name!r}, less the mean, divided by the scale",
        channels=channels,
        mean=float(label["mean"]),
        scale=float(label["scale"]),
    )
