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

    def constants():
        start = tf.constant_initializer(0.5)
        return tf.keras.Sequential([entry([6]), layers.Dense(2, kernel_initializer=start)])

    def compiled():
        built = sequential()
        built.compile("adam", "mse", ["mae"])
        built.fit(tf.ones([4, 6]), tf.ones([4, 2]), verbose=0)
        return tf.keras.Sequential([entry([6]), built])

    kinds = (sequential, two_inputs, nested, arithmetic, recurrent, attention, images)
    return {f.__name__: f for f in (*kinds, table, adapted, words, constants, compiled)}


def every_layer():
    """Builds a model with a branch for each layer that may be opened."""
    import tensorflow as tf

    layers, entry = tf.keras.layers, tf.keras.Input
    rows, images, volumes = entry([8, 4]), entry([8, 8, 3]), entry([6, 6, 6, 2])
    ids, key, vector = entry([5], dtype="int64"), entry([1], dtype="int64"), entry([3])
    sequences = [entry([3, 8, 4]), entry([3, 6, 6, 2]), entry([3, 4, 4, 4, 1])]
    branches = []

    def add(inputs, name, *arguments, **options):
        branches.append(getattr(layers, name)(*arguments, **options)(inputs))

    for d, x in enumerate((rows, images, volumes), start=1):
        for name in ("AveragePooling", "MaxPooling", "GlobalAveragePooling", "GlobalMaxPooling"):
            add(x, f"{name}{d}D")
        for name in ("Cropping", "UpSampling", "ZeroPadding"):
            add(x, f"{name}{d}D")
        add(x, f"Conv{d}D", 2, 2)
        add(x, f"Conv{d}DTranspose", 2, 2)
        add(x, f"SpatialDropout{d}D", 0.1)
        add(sequences[d - 1], f"ConvLSTM{d}D", 2, 2)
    for name in ("Masking", "Identity", "Flatten", "ReLU", "LeakyReLU", "PReLU", "ELU", "Softmax"):
        add(rows, name)
    for name in ("ThresholdedReLU", "BatchNormalization", "LayerNormalization"):
        add(rows, name)
    for name in ("Dropout", "AlphaDropout", "GaussianDropout", "GaussianNoise"):
        add(rows, name, 0.1)
    for name in ("ActivityRegularization", "Rescaling"):
        add(rows, name, 0.1)
    for name in ("SimpleRNN", "LSTM", "GRU", "Dense"):
        add(rows, name, 3)
    add(rows, "RNN", [layers.SimpleRNNCell(2), layers.LSTMCell(2), layers.GRUCell(2)])
    add(rows, "Bidirectional", layers.LSTM(2))
    add(rows, "TimeDistributed", layers.Dense(2))
    add(rows, "EinsumDense", "abc,cd->abd", output_shape=[8, 3])
    add(rows, "Activation", "tanh")
    add(rows, "Permute", (2, 1))
    add(rows, "Reshape", [-1])
    add(rows, "UnitNormalization")
    add(rows, "Normalization", axis=None, mean=2.0, variance=3.0)
    add(rows, "Discretization", [0.0, 1.0])
    add(rows, "SeparableConv1D", 2, 2)
    add(rows, "DepthwiseConv1D", 2)
    branches.append(layers.MultiHeadAttention(2, 3)(rows, rows))
    for name in ("Add", "Subtract", "Multiply", "Average", "Maximum", "Minimum", "Concatenate"):
        add([rows, rows], name)
    for name in ("Attention", "AdditiveAttention"):
        add([rows, rows], name)
    add([rows, rows], "Dot", 2)
    add(images, "SeparableConv2D", 2, 2)
    add(images, "DepthwiseConv2D", 2)
    add(images, "GroupNormalization", 1)
    for name in ("Resizing", "CenterCrop", "RandomCrop"):
        add(images, name, 4, 4)
    for name in ("Brightness", "Contrast", "Height", "Rotation", "Width", "Zoom"):
        add(images, f"Random{name}", 0.1)
    add(images, "RandomFlip")
    add(images, "RandomTranslation", 0.1, 0.1)
    add(ids, "Embedding", 7, 2)
    add(ids, "CategoryEncoding", 5)
    add(ids, "Hashing", 5)
    add((key, key), "HashedCrossing", 5)
    add(vector, "RepeatVector", 3)
    return tf.keras.Model([rows, images, volumes, ids, key, vector, *sequences], branches)


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
