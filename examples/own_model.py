"""Reptile on your own Keras model and your own clients, without the command line.

Run it with

    python examples/own_model.py
"""

import numpy as np
import tensorflow as tf
import tensorflow_federated as tff

import tff_fedmeta as fm


def build_model():
    return tf.keras.Sequential(
        [tf.keras.layers.Dense(32, activation="relu", input_shape=(4,)), tf.keras.layers.Dense(2)]
    )


def model_fn():
    return tff.learning.models.from_keras_model(
        build_model(),
        loss=tf.keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=[tf.keras.metrics.SparseCategoricalAccuracy(name="accuracy")],
        input_spec=(tf.TensorSpec([None, 4]), tf.TensorSpec([None], tf.int64)),
    )


def client(number):  # every client tells its two classes apart by a direction of its own
    rng = np.random.default_rng(number)
    x = rng.normal(size=(40, 4))
    y = (x @ (np.array([2, -2, 0, 0]) + rng.normal(size=4)) > 0).astype(np.int64)
    return fm.client_dataset(x, y, seed=(0, number))


with fm.local_runtime():
    reptile = fm.build_reptile(model_fn, inner_learning_rate=0.2, inner_epochs=3, batch_size=10)
    state = reptile.initialize()
    for round_num in range(30):
        cohort = [client(10 * round_num + i) for i in range(10)]
        state, metrics = reptile.next(state, cohort)
    weights = reptile.get_model_weights(state)

    evaluate = fm.build_adaptation_eval(
        model_fn, inner_learning_rate=0.2, inner_steps=10, batch_size=10
    )
    unseen = evaluate(weights, [client(1000 + i) for i in range(20)])
    print(
        np.mean([result["accuracy"] for result in unseen], axis=0)
    )  # before, after 1, 2 ... steps

fm.to_keras(build_model(), weights).save("reptile.keras")
