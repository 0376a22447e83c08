"""Keras files for tests: honest ones of every kind, and how to change what one holds."""

import json
import zipfile


def honest():
    """Name -> function that builds a model."""
    import tensorflow as tf

    layers, entry, model = tf.keras.layers, tf.keras.Input, tf.keras.Model

    def sequential():
        return tf.keras.Sequential([entry([6]), layers.Dense(4, tf.nn.relu), layers.Dense(2)])

    def two_inputs():
        a, b = entry([4], name="a"), entry([3], name="b")
        joined = layers.Concatenate()([layers.Dense(5, "tanh")(a), layers.Dense(2)(b)])
        return model([a, b], [layers.Dense(2)(joined), layers.Dense(1)(joined)])

    def nested():
        inner = sequential()
        x = entry([6])
        y = layers.Dense(6)(x)
        outer = model(x, layers.Add()([inner(x), inner(y)]))  # called twice, the weights shared
        return tf.keras.Sequential([entry([6]), outer, layers.Dense(3)])

    def arithmetic():
        x = entry([6])
        y = 1 - (x * 2 + 1)[:, :3] / tf.constant([1.0, 2.0, 3.0])
        y = tf.concat([tf.nn.relu(y), tf.cast(x > 0, tf.float32), -x], axis=-1)
        y = tf.reshape(tf.transpose(tf.stack([y, y**2], axis=1), [0, 2, 1]), [-1, 30])[:, 1:]
        y = tf.where(y > 0, y, tf.exp(y)) - tf.reduce_mean(y, axis=-1, keepdims=True)
        return model(x, layers.Dense(2)(y))

    def recurrent():
        x = entry([5, 3])
        y, state, _ = layers.LSTM(4, return_sequences=True, return_state=True)(x)
        y = layers.Bidirectional(layers.GRU(3, return_sequences=True))(y)
        z = layers.RNN([layers.GRUCell(3), layers.LSTMCell(2)])(y)
        w = layers.GRU(4)(y, initial_state=state)
        return model(x, layers.Dense(2)(layers.concatenate([z, w])))

    def attention():
        x = entry([5, 4])
        y = layers.MultiHeadAttention(2, 3)(x, x)
        y = layers.LayerNormalization()(x + y)
        y = layers.Attention()([y, x])
        y = layers.TimeDistributed(tf.keras.Sequential([entry([4]), layers.Dense(3)]))(y)
        return model(x, layers.Dense(2)(layers.GlobalAveragePooling1D()(y)))

    def images():
        return tf.keras.Sequential(
            [
                *(entry([8, 8, 1]), layers.Rescaling(1 / 255), layers.RandomFlip()),
                *(layers.Conv2D(3, 3, kernel_regularizer="l2"), layers.BatchNormalization()),
                *(layers.LeakyReLU(), layers.MaxPool2D(), layers.Flatten(), layers.Dropout(0.5)),
                layers.Dense(2, kernel_constraint=tf.keras.constraints.MaxNorm()),
            ]
        )

    def table():
        mean, variance = [1.0, 2.0, 3.0], [1.0, 4.0, 9.0]
        return tf.keras.Sequential(
            [entry([3]), layers.Normalization(mean=mean, variance=variance), layers.Dense(2)]
        )

    def adapted():
        norm = layers.Normalization()
        norm.adapt(tf.random.stateless_normal([20, 3], [0, 1]))
        return tf.keras.Sequential([entry([3]), norm, layers.Dense(2)])

    def words():
        return tf.keras.Sequential(
            [
                *(entry([5], dtype=tf.int64), layers.Embedding(50, 4, mask_zero=True)),
                *(layers.LSTM(4, return_sequences=True), layers.Dense(50)),
            ]
        )

    def compiled():
        built = sequential()
        built.compile("adam", "mse", ["mae"])
        built.fit(tf.ones([4, 6]), tf.ones([4, 2]), verbose=0)
        return tf.keras.Sequential([entry([6]), built])

    kinds = (sequential, two_inputs, nested, arithmetic, recurrent, attention, images)
    return {f.__name__: f for f in (*kinds, table, adapted, words, compiled)}


def rewrite(source, target, change=lambda config: None, **members):
    """Writes a changed copy of a `.keras` file.

    Args:
      source: The file.
      target: Where the copy goes.
      change: Changes the configuration in place.
      **members: Content of members by name with `_` for `.`; None leaves one out.
    """
    with zipfile.ZipFile(source) as archive:
        files = {name: archive.read(name) for name in archive.namelist()}
    config = json.loads(files["config.json"])
    change(config)
    files["config.json"] = json.dumps(config).encode()
    for name, content in members.items():
        files[name.replace("__", "/").replace("_", ".")] = content
    with zipfile.ZipFile(target, "w") as archive:
        for name, content in files.items():
            if content is not None:
                archive.writestr(name, content)
    return target
