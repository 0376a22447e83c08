"""Facts about days: support is all of a client's past, the query is one day, NumPy agrees."""

import functools

import numpy as np
import pandas as pd
import pytest
import tensorflow as tf
import tensorflow_federated as tff

import datasets
from datasets import DataError
from tff_fedmeta.config.protocol import AdaptationProtocol
from tff_fedmeta.experiment import adapted_client, day_by_day

RATE, STEPS = 0.1, 3


def table(num_clients=4, num_days=5, per_day=4):
    """Dates with the day first, not in the order of the file; y is a quantity."""
    rng = np.random.default_rng(0)
    n = num_clients * num_days * per_day
    when = pd.Timestamp("2024-01-29 01:00") + pd.to_timedelta(
        np.tile(np.arange(num_days * per_day), num_clients) * (24 // per_day), unit="h"
    )
    frame = pd.DataFrame(
        {
            "who": np.repeat([f"c{i}" for i in range(num_clients)], num_days * per_day),
            "at": when,
            "x": rng.normal(size=n),
        }
    )
    frame["y"] = 3 * frame["x"] + rng.normal(size=n)
    return frame


def load(path, **options):
    options = {"csv": str(path), "client_column": "who", "label_column": "y", **options}
    return datasets.load("csv", datasets.Request(options={"day_by_day": True, **options}))


def test_each_day_is_measured_after_adapting_on_all_days_before(tmp_path):
    frame = table()
    written = frame.assign(at=frame["at"].dt.strftime("%d/%m/%Y %H:%M"))
    written.sample(frac=1, random_state=0).to_csv(tmp_path / "table.csv", index=False)
    task = load(tmp_path / "table.csv", time_column="at")
    weights = tff.learning.models.ModelWeights.from_model(task.model_fn())
    build = functools.partial(
        adapted_client.build_adapter,
        task=task,
        weights=weights,
        chosen={"inner_learning_rate": RATE, "steps": STEPS},
    )
    protocol = AdaptationProtocol(steps=STEPS, batch_size=100, split="ordered")
    client = task.test_clients[0]
    measured = day_by_day.measure(task, [client], build, protocol, task.read_client)
    (rows,) = (each["days"] for each in measured["clients"])
    assert [row["day"] for row in rows] == [
        *("2024-01-30", "2024-01-31", "2024-02-01", "2024-02-02")
    ]
    assert [(row["num_support"], row["num_query"]) for row in rows] == [
        *((4, 4), (8, 4), (12, 4), (16, 4))
    ]
    x, y = task.read_client(client)
    scale = task.assets["preprocessing.json"]["label"]["scale"]
    for row in rows:
        model, past = task.build_keras_model(), row["num_support"]
        day = slice(past, past + row["num_query"])
        errors = lambda: scale * np.abs(model(x[day]).numpy()[:, 0] - y[day]).mean()  # noqa: E731, B023
        assert row["before"] == pytest.approx(errors(), rel=1e-4)
        model.compile(tf.keras.optimizers.SGD(RATE), "mse")
        model.fit(x[:past], y[:past], 100, epochs=STEPS, verbose=0)  # all of the past, each step
        assert row["after"] == pytest.approx(errors(), rel=1e-4)
    assert measured["summary"]["days"] == 4
    for way in ("before", "after"):
        assert measured["summary"][way] == pytest.approx(np.mean([row[way] for row in rows]))


@pytest.mark.parametrize("options", [{}, {"time_column": "x"}])
def test_days_need_dates(tmp_path, options):
    table().to_csv(tmp_path / "table.csv", index=False)
    with pytest.raises(DataError, match="--day_by_day needs a --time_column of dates"):
        load(tmp_path / "table.csv", exclude_columns="at", **options)
