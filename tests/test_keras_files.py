import copy
import io
import json
import os
import stat
import sys
import time
import warnings
import zipfile

import h5py
import keras_samples
import numpy as np
import pytest

from tff_fedmeta import keras_files
from tff_fedmeta.keras_files import KerasFileError, allowed

HONEST = list(keras_samples.honest())


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Name -> (path, model) of the honest models."""
    directory = tmp_path_factory.mktemp("honest")
    saved = {}
    for name, build in keras_samples.honest().items():
        path, model = directory / f"{name}.keras", build()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Keras' own, at initializers of TensorFlow's
            model.save(path)
        saved[name] = path, model
    return saved


@pytest.fixture
def refused(tmp_path, monkeypatch):
    """Checks that a file is refused in time, by name, with nothing written."""
    work = tmp_path / "work"
    work.mkdir()
    monkeypatch.chdir(work)
    monkeypatch.setenv("TMPDIR", str(work))
    monkeypatch.setattr("tempfile.tempdir", None)

    def check(path, *parts):
        before = sorted(p for p in tmp_path.rglob("*"))
        start = time.process_time()
        with pytest.raises(KerasFileError) as error:
            keras_files.open_model(path)
        assert time.process_time() - start < 2
        assert sorted(p for p in tmp_path.rglob("*")) == before
        said = str(error.value)
        assert "\n" not in said and said.endswith(".") and str(path) in said
        for part in parts:
            assert part in said
        return said

    return check


# --- honest files --------------------------------------------------------------------------------


@pytest.mark.parametrize("name", HONEST)
def test_an_honest_model_opens_with_its_weights_and_predicts_the_same(files, name):
    import tensorflow as tf

    path, model = files[name]
    opened = keras_files.open_model(path)
    assert [w.shape for w in opened.weights] == [w.shape for w in model.weights]
    for mine, theirs in zip(opened.get_weights(), model.get_weights()):
        np.testing.assert_array_equal(mine, theirs)
    rng = np.random.default_rng(0)
    x = [rng.normal(size=[2, *i.shape[1:]]).astype(i.dtype.as_numpy_dtype) for i in model.inputs]
    x = [abs(array) for array in x] if name == "words" else x
    for one, other in zip(
        tf.nest.flatten(opened(x, training=False)), tf.nest.flatten(model(x, training=False))
    ):
        np.testing.assert_array_equal(one, other)
    assert getattr(opened, "optimizer", None) is None


def test_a_file_in_the_home_directory_opens(tmp_path, monkeypatch):
    import tensorflow as tf

    monkeypatch.setenv("HOME", str(tmp_path))
    tf.keras.Sequential([tf.keras.Input([5]), tf.keras.layers.Dense(2)]).save(tmp_path / "m.keras")
    assert keras_files.open_model("~/m.keras").count_params() == 12


def test_a_repacked_archive_opens(files, tmp_path):
    path, _ = files["images"]
    with zipfile.ZipFile(path) as source, zipfile.ZipFile(tmp_path / "m.keras", "w", 8) as target:
        for name in source.namelist():
            target.writestr(name, source.read(name))
    assert keras_files.open_model(tmp_path / "m.keras").count_params() > 0


def class_names(config):
    if isinstance(config, dict):
        yield config.get("class_name")
        config = list(config.values())
    for value in config if isinstance(config, list) else []:
        yield from class_names(value)


def test_every_layer_of_the_table_opens(tmp_path):
    path, model = tmp_path / "all.keras", keras_samples.every_layer()
    model.save(path)
    assert set(class_names(keras_files.check_archive(path).config)) >= allowed.LAYERS
    opened = keras_files.open_model(path)
    assert len(opened.layers) == len(model.layers)
    for mine, theirs in zip(opened.get_weights(), model.get_weights()):
        np.testing.assert_array_equal(mine, theirs)


# --- configurations ------------------------------------------------------------------------------


def operation(function, *call, name="op"):
    """A layer that calls a TensorFlow operation, on constants unless `call` says otherwise."""
    return {
        "module": "keras.src.layers.core.tf_op_layer",
        "class_name": "TFOpLambda",
        "config": {"name": name, "trainable": True, "dtype": "float32", "function": function},
        "registered_name": "TFOpLambda",
        "name": name,
        "inbound_nodes": list(call),
    }


def constant(value, **kwargs):
    return ["_CONSTANT_VALUE", -1, value, kwargs]


def keras_layer(class_name, module="keras.layers", registered_name=None, **config):
    name = config.setdefault("name", "bad")
    return {
        "module": module,
        "class_name": class_name,
        "config": config,
        "registered_name": registered_name,
        "name": name,
        "inbound_nodes": [[["input_x", 0, 0, {}]]],
    }


def entry(*shape, name="input_x"):
    config = {"batch_input_shape": [None, *shape], "dtype": "float32", "name": name}
    return {**keras_layer("InputLayer", **config), "inbound_nodes": []}


def functional(*layers, name="made", shape=(6,)):
    first = entry(*shape)
    return {
        "module": "keras.src.engine.functional",
        "class_name": "Functional",
        "config": {
            "name": name,
            "trainable": True,
            "layers": [first, *layers],
            "input_layers": [["input_x", 0, 0]],
            "output_layers": [["input_x", 0, 0]],
        },
        "registered_name": "Functional",
        "name": name,
        "inbound_nodes": [[["input_x", 0, 0, {}]]],
    }


def sequential(*layers, name="row"):
    layers = [{k: v for k, v in layer.items() if k != "inbound_nodes"} for layer in layers]
    return {
        "module": "keras",
        "class_name": "Sequential",
        "config": {"name": name, "layers": [entry(6), *layers]},
        "registered_name": None,
        "name": name,
        "inbound_nodes": [[["input_x", 0, 0, {}]]],
    }


def around(layer, class_name):
    return keras_layer(class_name, name="around", layer=layer)


WRITE = operation("io.write_file", constant("owned.py", contents="import os"), name="writer")
LAMBDA = keras_layer("Lambda", name="code", function={"class_name": "__lambda__", "config": {}})
STRING_LOOKUP = keras_layer("StringLookup", name="reader", vocabulary="/etc/passwd")

NAMED = {
    "write": (functional(WRITE), "'writer'", "io.write_file"),
    "write in a model": (functional(functional(WRITE, name="inner")), "'writer'"),
    "write in a row": (sequential(functional(WRITE)), "'writer'"),
    "write per step": (functional(around(functional(WRITE), "TimeDistributed")), "'writer'"),
    "write both ways": (functional(around(WRITE, "Bidirectional")), "'writer'"),
    "write within deep": (
        functional(
            around(
                around(sequential(around(WRITE, "Bidirectional")), "TimeDistributed"),
                "TimeDistributed",
            )
        ),
        "'writer'",
    ),
    "write as activation": (
        functional(keras_layer("Dense", units=2, name="d", activation=WRITE)),
        "'writer'",
    ),
    "write in a cell": (functional(keras_layer("RNN", cell=WRITE)), "'writer'"),
    "write of an input": (
        functional(operation("io.write_file", ["input_x", 0, 0, {"contents": "x"}])),
        "'op'",
    ),
    "read": (functional(operation("io.read_file", constant("/etc/passwd"))), "io.read_file"),
    "raw": (functional(operation("raw_ops.WriteFile", constant("a"))), "raw_ops.WriteFile"),
    "python": (functional(operation("py_function", constant("a"))), "py_function"),
    "numpy": (functional(operation("numpy_function", constant("a"))), "numpy_function"),
    "print": (functional(operation("print", constant("a"))), "'print'"),
    "network": (
        functional(operation("config.experimental_connect_to_host", constant("evil:80"))),
        "experimental_connect_to_host",
    ),
    "delete": (functional(operation("io.gfile.rmtree", constant("work"))), "io.gfile.rmtree"),
    "file system": (functional(operation("load_library", constant("evil.so"))), "load_library"),
    "lambda": (functional(LAMBDA), "'code'", "'Lambda'"),
    "lambda in a row": (sequential(LAMBDA), "'code'"),
    "lambda per step": (sequential(around(LAMBDA, "TimeDistributed")), "'code'"),
    "vocabulary": (functional(STRING_LOOKUP), "'reader'", "StringLookup"),
    "vocabulary in a row": (sequential(sequential(STRING_LOOKUP)), "'reader'"),
    "text": (sequential(keras_layer("TextVectorization", vocabulary="/etc/passwd")), "'bad'"),
    "module": (sequential(keras_layer("Popen", module="subprocess", args="true")), "subprocess"),
    "utility": (
        sequential(keras_layer("get_file", module="keras.utils", origin="http://evil")),
        "keras.utils",
    ),
    "hidden module": (
        sequential(
            keras_layer(
                "Dense",
                name="d",
                units=1,
                kernel_initializer={
                    "module": "os",
                    "class_name": "system",
                    "config": {},
                    "registered_name": None,
                },
            )
        ),
        "'d'",
        "'system'",
    ),
    "no module": (
        sequential(
            keras_layer(
                "Dense",
                name="d",
                units=1,
                kernel_initializer={"class_name": "Lambda", "config": {}},
            )
        ),
        "'d'",
    ),
    "function": (
        sequential(
            keras_layer(
                "Activation",
                activation={
                    "module": "os",
                    "class_name": "function",
                    "config": "system",
                    "registered_name": "system",
                },
            )
        ),
        "'bad'",
        "'system'",
    ),
    "activation": (sequential(keras_layer("Activation", activation="deserialize")), "'bad'"),
    "custom": (sequential(keras_layer("Dense", registered_name="Custom>Evil", units=1)), "Custom>"),
    "subclass": ({**functional(), "registered_name": "Custom>Net"}, "Custom>Net"),
    "attribute": (
        functional({**operation("cast", ["input_x", 0, 0, {}]), "class_name": "InstanceMethod"}),
        "InstanceMethod",
    ),
    "type": (
        functional(
            {
                **entry(6, name="t"),
                "config": {
                    "name": "t",
                    "type_spec": {
                        "class_name": "__typespec__",
                        "module": "os",
                        "spec_name": "system",
                        "registered_name": None,
                        "config": [],
                    },
                },
            }
        ),
        "'t'",
    ),
    "array": (
        sequential(
            keras_layer(
                "Normalization",
                mean={"class_name": "__numpy__", "config": {"value": "a", "dtype": "U999999999"}},
            )
        ),
        "'bad'",
    ),
    "collective": (sequential(keras_layer("BatchNormalization", synchronized=True)), "'bad'"),
    "constants": (
        functional(operation("one_hot", constant([0, 1], depth=10**10))),
        "'op'",
        "constants alone",
    ),
    "constants of a layer": (
        functional(
            {**keras_layer("UpSampling1D", size=10**9), "inbound_nodes": [[constant([[[1.0]]])]]}
        ),
        "'bad'",
        "constants alone",
    ),
    "fill": (functional(operation("fill", ["input_x", 0, 0, {}])), "'fill'"),
    "wide": (sequential(keras_layer("Dense", units=10**12)), "'bad'"),
    "wide embedding": (
        sequential(keras_layer("Embedding", input_dim=10**9, output_dim=100)),
        "'bad'",
    ),
    "wide input": (functional(shape=(10**6, 10**6)), "'input_x'"),
    "wide shape": (
        sequential(keras_layer("Reshape", target_shape=[10**6, 10**6])),
        "'bad'",
    ),
    "wide output": (
        functional(keras_layer("RepeatVector", n=10**9)),
        "'bad'",
        "numbers of one example",
    ),
    "spread": (
        sequential(
            *(
                keras_layer("RepeatVector", name="many", n=10**9),
                keras_layer("Flatten", name="flat"),
            ),
            keras_layer("Normalization", axis=[-1], mean=0.0, variance=1.0),
        ),
        "'bad'",
        "6,000,000,000",
    ),
    "classes": (sequential(keras_layer("CategoryEncoding", num_tokens=10**12)), "num_tokens"),
    "unstacked": (functional(operation("unstack", ["input_x", 0, 0, {"axis": 1}])), "'unstack'"),
    "split": (
        functional(operation("split", ["input_x", 0, 0, {"num_or_size_splits": 2**28}])),
        "'op'",
        "num_or_size_splits",
    ),
    "planned": (
        functional(operation("einsum", ["input_x", 0, 0, {"optimize": "optimal"}])),
        "'op'",
        "for ever",
    ),
    "odd class": (sequential(keras_layer(["Dense"])), "without a class"),
    "odd name": (sequential(keras_layer("Lambda", name="x\n\x1b[2J" + "y" * 10**6)), "'x\\n"),
    "odd number": (sequential(keras_layer("Reshape", target_shape=[10**300] * 30)), "'bad'"),
    "unrolled": (sequential(keras_layer("LSTM", units=1, unroll=True)), "'bad'", "unroll"),
    "circle": (
        functional(
            {**keras_layer("ReLU", name="a"), "inbound_nodes": [[["b", 0, 0, {}]]]},
            {**keras_layer("ReLU", name="b"), "inbound_nodes": [[["a", 0, 0, {}]]]},
        ),
        "'a'",
        "never comes",
    ),
    "itself": (
        functional({**keras_layer("ReLU", name="a"), "inbound_nodes": [[["a", 5, 0, {}]]]}),
        "'a'",
        "never comes",
    ),
    "nobody": (
        functional({**keras_layer("ReLU", name="a"), "inbound_nodes": [[["z", 0, 0, {}]]]}),
        "'z'",
    ),
    "not a model": (keras_layer("Dense", units=1), "Dense"),
    "a list": ([], "model"),
}


def ten_times(inner):
    calls = [[["input_x", 0, 0, {}]]] * 10
    return functional({**inner, "inbound_nodes": calls}, name="m" + inner["name"])


def deep(levels):
    model = functional(keras_layer("ReLU", name="r"))
    for _ in range(levels):
        model = ten_times(model)
    return model


NAMED["multiplied"] = (deep(6), "calls of layers")


@pytest.mark.parametrize("name", list(NAMED))
def test_a_hostile_configuration_is_refused(files, refused, tmp_path, name):
    config, *parts = NAMED[name]

    def change(old):
        if isinstance(config, dict):
            old.clear()
            old.update(copy.deepcopy(config))

    bad = tmp_path / "bad.keras"
    if isinstance(config, dict):
        keras_samples.rewrite(files["sequential"][0], bad, change)
    else:
        rewritten = json.dumps(config).encode()
        keras_samples.rewrite(files["sequential"][0], bad)
        with zipfile.ZipFile(bad) as archive:
            members = {n: archive.read(n) for n in archive.namelist()}
        with zipfile.ZipFile(bad, "w") as archive:
            for n, content in {**members, "config.json": rewritten}.items():
                archive.writestr(n, content)
    refused(bad, *parts)


def test_the_file_that_writes_does_write_with_keras_alone(files, tmp_path, monkeypatch):
    import tensorflow as tf

    monkeypatch.chdir(tmp_path)

    def change(config):
        config.clear()
        config.update(copy.deepcopy(functional(WRITE)))

    bad = keras_samples.rewrite(files["sequential"][0], tmp_path / "bad.keras", change)
    with pytest.raises(AttributeError):  # but by then it has happened
        tf.keras.models.load_model(bad, safe_mode=True)
    assert (tmp_path / "owned.py").read_text() == "import os"


def test_what_the_training_configuration_names_is_never_imported(files, tmp_path, monkeypatch):
    (tmp_path / "evil_module.py").write_text("open('owned.py', 'w').write('1')\nclass M: pass\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    evil = {"module": "evil_module", "class_name": "M", "config": {}, "registered_name": None}
    training = {"optimizer": evil, "loss": evil, "metrics": [evil, operation("io.write_file")]}

    def change(config):
        config["compile_config"] = training
        for layer in config["config"]["layers"]:
            layer["compile_config"] = training

    bad = keras_samples.rewrite(files["compiled"][0], tmp_path / "bad.keras", change)
    model = keras_files.open_model(bad)
    assert len(model.get_weights()) == 4
    assert "evil_module" not in sys.modules and not (tmp_path / "owned.py").exists()


def test_a_registered_class_is_refused_though_keras_would_take_it(refused, tmp_path):
    import tensorflow as tf

    @tf.keras.saving.register_keras_serializable("test_keras_files")
    class Mine(tf.keras.layers.Dense):
        pass

    path = tmp_path / "mine.keras"
    tf.keras.Sequential([tf.keras.Input([6]), Mine(2, name="own")]).save(path)
    assert tf.keras.models.load_model(path).count_params() == 14
    refused(path, "'own'")


def test_a_configuration_nested_without_end_is_refused(files, refused, tmp_path):
    source = files["sequential"][0]
    for text in (b"[" * 200_000, b'{"a":' * 200_000, b"[" * 300 + b"]" * 300):
        refused(with_members(source, tmp_path / "bad.keras", {"config.json": text}), "deep")


def spoil(rng, value):
    """Puts something else in a random place of a configuration."""
    odd = [None, [], {}, 10**400, -1, 1.5, "x", "_CONSTANT_VALUE", [["a", 0, 0, {}]], True]
    odd += [{"class_name": "Dense", "config": {}}, {"class_name": [], "config": 3}, [[[]]]]
    while True:
        keys = list(value) if isinstance(value, dict) else range(len(value))
        key = keys[rng.integers(len(keys))]
        inner = value[key]
        if not inner or not isinstance(inner, (dict, list)) or rng.random() < 0.1:
            value[key] = odd[rng.integers(len(odd))]
            return
        value = inner


@pytest.mark.parametrize("name", ["nested", "arithmetic", "recurrent", "attention"])
def test_a_damaged_configuration_never_ends_in_another_error(files, tmp_path, name):
    rng = np.random.default_rng(0)
    for _ in range(200):
        bad = tmp_path / "bad.keras"
        keras_samples.rewrite(files[name][0], bad, lambda config: spoil(rng, config))
        try:
            keras_files.check_archive(bad)
        except KerasFileError as error:  # a rule of ours, not an accident of the checks
            assert "is not opened" in str(error), str(error)


def chain(number):
    """Layers that each wait for the next one in the file."""
    for index in reversed(range(number)):
        source = f"r{index - 1}" if index else "input_x"
        yield {**keras_layer("ReLU", name=f"r{index}"), "inbound_nodes": [[[source, 0, 0, {}]]]}


def test_configurations_that_take_long_to_follow_are_refused_in_time(files, refused, tmp_path):
    many = {**keras_layer("ReLU"), "inbound_nodes": [[["input_x", 0, 0, {}]]] * 100_000}
    wide = keras_layer("Dense", name="d", units=1, x=[[]] * 700_000)
    few = {**keras_layer("ReLU"), "inbound_nodes": [[["input_x", 0, 0, {}]]] * 6_000}
    for config, part in [
        (functional(many), "more than 300,000 values"),
        (sequential(wide), "more than 300,000 values"),
        (functional(few), "more than 5,000 calls"),
        (functional(*chain(4_900)), "too late"),
    ]:
        changes = {"config.json": json.dumps(config).encode()}
        bad = with_members(files["sequential"][0], tmp_path / "bad.keras", changes)
        refused(bad, part)


# --- archives ------------------------------------------------------------------------------------


def with_members(source, target, changes, compression=zipfile.ZIP_STORED):
    with zipfile.ZipFile(source) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(target, "w", compression) as archive:
        for name, content in {**members, **changes}.items():
            if content is not None:
                archive.writestr(name, content)
    return target


def test_hostile_archives_are_refused(files, refused, tmp_path):
    source, bad = files["sequential"][0], tmp_path / "bad.keras"
    for name in ("../owned.py", "/owned.py", "assets/../../owned.py", "assets/vocabulary.txt"):
        refused(with_members(source, bad, {name: b"1"}), repr(name))
    pickled = {"model.weights.h5": None, "model.weights.npz": b"1"}
    refused(with_members(source, bad, pickled), "can run code")
    for name in ("config.json", "metadata.json", "model.weights.h5"):
        refused(with_members(source, bad, {name: None}), f"no {name}")

    link = zipfile.ZipInfo("model.weights.h5")
    link.external_attr = (stat.S_IFLNK | 0o777) << 16
    refused(with_members(source, bad, {"model.weights.h5": None, link: b"/etc/passwd"}), "a link")

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with_members(source, bad, {})
        with zipfile.ZipFile(bad, "a") as archive:
            archive.writestr("config.json", json.dumps(functional(WRITE)))
    refused(bad, "once each")

    zeros = {"model.weights.h5": bytes(100 * 2**20)}
    refused(with_members(source, bad, zeros, zipfile.ZIP_DEFLATED), "more than 100 times")
    refused(with_members(source, bad, {"config.json": b" " * (2**22 + 1)}), "more than 4,194,304")
    refused(with_members(source, bad, {}, zipfile.ZIP_LZMA), "unusual")
    refused(with_members(source, bad, {"config.json": b"{"}), "is not JSON")
    keras3 = {"metadata.json": b'{"keras_version": "3.3.0"}'}
    refused(with_members(source, bad, keras3), "Keras 3.3.0 saved it")

    content = source.read_bytes()
    bad.write_bytes(content[: len(content) // 2])
    refused(bad)
    bad.write_bytes(content.replace(b'"units": 4', b'"units": 5'))
    refused(bad, "cannot be unpacked")
    bad.write_bytes(b"")
    refused(bad, "not a zip archive")


def test_only_an_ordinary_file_is_opened(refused, tmp_path):
    pipe = tmp_path / "pipe.keras"
    os.mkfifo(pipe)
    refused(pipe, "not an ordinary file")
    pipe.unlink()
    (tmp_path / "dir.keras").mkdir()
    refused(tmp_path / "dir.keras", "not an ordinary file")
    refused(tmp_path / "missing.keras", "There is no file")
    (tmp_path / "model.h5").write_bytes(b"1")
    refused(tmp_path / "model.h5", "must be a .keras file")


# --- weights -------------------------------------------------------------------------------------


def external_link(file, _):
    file["a"] = h5py.ExternalLink("/etc/hosts", "/x")


def soft_link(file, _):
    file["a"] = h5py.SoftLink("/x")


def circle(file, _):
    file["a"] = file["/"]


def virtual(file, directory):
    with h5py.File(directory / "other.h5", "w") as other:
        other["x"] = np.ones(3)
    layout = h5py.VirtualLayout((3,), "f8")
    layout[:] = h5py.VirtualSource(str(directory / "other.h5"), "x", (3,))
    file.create_virtual_dataset("a", layout)


def external_storage(file, directory):
    (directory / "secret.bin").write_bytes(bytes(80))
    file.create_dataset("a", [10], "f8", external=[(str(directory / "secret.bin"), 0, 80)])


def bomb(file, _):
    file.create_dataset("a", [10**6], "f4", compression="gzip", data=np.zeros(10**6, "f4"))


def unwritten(file, _):
    file.create_dataset("a", [10**10], "f4")


def text(file, _):
    file["a"] = "text"


def reference(file, _):
    file.create_dataset("a", data=[file.ref], dtype=h5py.ref_dtype)


def kind(file, _):
    file["a"] = np.dtype("f4")


@pytest.mark.parametrize(
    "spoil",
    [
        external_link,
        soft_link,
        circle,
        virtual,
        external_storage,
        bomb,
        unwritten,
        text,
        reference,
        kind,
    ],
)
def test_weights_that_are_not_plain_numbers_are_refused(files, refused, tmp_path, spoil):
    source = files["sequential"][0]
    with zipfile.ZipFile(source) as archive:
        content = io.BytesIO(archive.read("model.weights.h5"))
    with h5py.File(content, "a") as file:
        spoil(file["_layer_checkpoint_dependencies"], tmp_path)
    changes = {"model.weights.h5": content.getvalue()}
    refused(with_members(source, tmp_path / "bad.keras", changes), "its weights contain")

    bare = tmp_path / "bad.weights.h5"
    bare.write_bytes(content.getvalue())
    with pytest.raises(KerasFileError, match="its weights contain"):
        keras_files.load_weights(files["sequential"][1], bare)


def test_weights_that_are_cut_or_not_hdf5_are_refused(files, refused, tmp_path):
    source = files["sequential"][0]
    with zipfile.ZipFile(source) as archive:
        content = archive.read("model.weights.h5")
    for wrong in (content[: len(content) // 2], b"text", b""):
        changes = {"model.weights.h5": wrong}
        refused(with_members(source, tmp_path / "bad.keras", changes), "cannot be read as HDF5")


def test_weights_files_are_loaded_or_refused(files, tmp_path):
    _, model = files["sequential"]
    other = keras_samples.honest()["sequential"]()
    model.save_weights(tmp_path / "good.weights.h5")
    keras_files.load_weights(other, tmp_path / "good.weights.h5")
    for mine, theirs in zip(other.get_weights(), model.get_weights()):
        np.testing.assert_array_equal(mine, theirs)
    with pytest.raises(KerasFileError, match="does not fit the model"):
        keras_files.load_weights(files["two_inputs"][1], tmp_path / "good.weights.h5")
    with pytest.raises(KerasFileError, match="There is no file"):
        keras_files.load_weights(other, tmp_path / "missing.weights.h5")
