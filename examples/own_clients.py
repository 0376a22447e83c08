"""Clients of your own as a plug-in: ten homes, each with its own way from temperature to heating.

Run it with

    python run_experiment.py --plugin=examples/own_clients.py --dataset=my_homes
"""

import dataclasses

import numpy as np

import datasets


@dataclasses.dataclass(frozen=True)
class Options(datasets.Options):
    """Each field is a flag: --homes=30."""

    homes: int = datasets.option(20, "How many homes there are.", at_least=3)


@datasets.register("my_homes", options=Options)
def load(request):
    """Returns the task; a real one reads files here."""
    import tensorflow as tf

    def read(home):
        rng = np.random.default_rng(int(home.split("_")[1]))
        x = rng.normal(size=(40, 3)).astype(np.float32)  # temperature outside, inside, hour
        likes = np.array([-1.0, -1.0, 0.0]) + rng.normal(size=3)
        return x, (x @ likes > 0).astype(np.int32)  # whether the heating was on

    def build_model():
        layer = tf.keras.layers.Dense
        start = [tf.keras.initializers.GlorotUniform(seed=request.seed + i) for i in range(2)]
        hidden = layer(16, "relu", kernel_initializer=start[0])
        last = layer(2, kernel_initializer=start[1])
        return tf.keras.Sequential([tf.keras.Input([3]), hidden, last])

    homes = [f"home_{i}" for i in range(request.options.homes)]
    train, validation, test = datasets.split_clients(homes, 0, request.num_test_clients)
    return datasets.Task(
        name="my_homes",
        data_source="own",
        train_clients=train,
        validation_clients=validation,
        test_clients=test,
        read_client=read,
        build_keras_model=build_model,
        build_loss=lambda: tf.keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        build_metrics=lambda: [tf.keras.metrics.SparseCategoricalAccuracy("accuracy")],
        input_spec=(tf.TensorSpec([None, 3]), tf.TensorSpec([None], tf.int32)),
        meaning=datasets.Meaning(  # for whoever has the exported model alone
            inputs="a home at one moment, standardised",
            target="whether the heating is on",
            output="a logit for each class",
            channels=["temperature outside", "temperature inside", "hour"],
            classes=["off", "on"],
        ),
    )
