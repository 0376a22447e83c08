"""Metrics are over all examples, however these are cut into passes and clients."""

import collections

import numpy as np
import pytest
import tensorflow as tf
import tensorflow_federated as tff

import tff_fedmeta as fm
from tff_fedmeta.client import model_checks

METRICS = tf.keras.metrics


def model_fn_of(outputs, label, loss, metrics):
    def model_fn():
        dense = tf.keras.layers.Dense(outputs, kernel_initializer=tf.keras.initializers.Ones())
        return tff.learning.models.from_keras_model(
            keras_model=tf.keras.Sequential([tf.keras.Input((3,)), dense]),
            loss=loss(),
            metrics=metrics(),
            input_spec=collections.OrderedDict(x=tf.TensorSpec([None, 3]), y=label),
        )

    return model_fn


def quantity_model(label_shape, metrics):
    label = tf.TensorSpec(label_shape, tf.float32)
    return model_fn_of(1, label, tf.keras.losses.MeanSquaredError, metrics)


def test_a_metric_that_counts_passes_is_refused_by_name():
    model_fn = quantity_model([None], lambda: [METRICS.MeanAbsoluteError("how_far")])
    with pytest.raises(model_checks.ModelError, match=r"how_far counts passes.*\[n, 1\]"):
        fm.build_reptile(model_fn, inner_learning_rate=0.1, batch_size=20)


@pytest.mark.parametrize(
    "metrics",
    [
        lambda: [METRICS.MeanAbsoluteError(), METRICS.MeanSquaredError()],
        lambda: [METRICS.RootMeanSquaredError(), METRICS.LogCoshError()],
        lambda: [METRICS.AUC(from_logits=True), METRICS.BinaryAccuracy(), METRICS.Precision()],
    ],
)
def test_metrics_that_add_up_pass(metrics):
    model_checks.refuse_uneven_metrics(quantity_model([None, 1], metrics))


def test_metrics_of_classes_pass():
    def metrics():
        return [METRICS.SparseCategoricalAccuracy(), METRICS.SparseTopKCategoricalAccuracy(2)]

    def loss():
        return tf.keras.losses.SparseCategoricalCrossentropy(from_logits=True)

    model_checks.refuse_uneven_metrics(
        model_fn_of(4, tf.TensorSpec([None], tf.int32), loss, metrics)
    )


def test_metrics_of_long_queries_are_over_all_their_examples():
    """Two passes of 128 and of what is left, which a mean of means would count alike."""

    def metrics():
        return [
            METRICS.MeanAbsoluteError("mae"),
            METRICS.MeanSquaredError("mse"),
            METRICS.RootMeanSquaredError("rmse"),
        ]

    rng = np.random.default_rng(0)
    sizes = (258, 262, 600)  # queries of 129, 131 and 300
    clients = [(rng.normal(size=(n, 3)), rng.standard_cauchy((n, 1))) for n in sizes]
    model_fn = quantity_model([None, 1], metrics)
    evaluate = fm.build_adaptation_eval(
        model_fn, inner_learning_rate=0.0, inner_steps=1, batch_size=50, split="ordered"
    )
    weights = tff.learning.models.ModelWeights.from_model(model_fn())
    with fm.local_runtime():
        found = evaluate(weights, [fm.client_dataset(x, y) for x, y in clients])
    for n, (x, y), result in zip(sizes, clients, found):
        assert result["num_query"] == n // 2
        errors = (x.sum(axis=1) - y[:, 0])[n // 2 :]  # all weights are 1
        np.testing.assert_allclose(result["mae"], np.abs(errors).mean(), rtol=1e-5)
        np.testing.assert_allclose(result["mse"], np.square(errors).mean(), rtol=1e-5)
        np.testing.assert_allclose(result["loss"], np.square(errors).mean(), rtol=1e-5)
        np.testing.assert_allclose(result["rmse"], np.sqrt(np.square(errors).mean()), rtol=1e-5)
