"""What every data set hands over: who the clients are, how to read one, and what to train."""

from __future__ import annotations

import collections
import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Callable, NamedTuple

import numpy as np

if TYPE_CHECKING:
    import tensorflow as tf
    import tensorflow_federated as tff

VALIDATION_FRACTION = 0.10
TEST_FRACTION = 0.15

# Who is in training, validation and test, and the embedded clients, are the same in every run, so
# that what was chosen on the validation clients of one seed never saw the test clients of another.
DATA_SEED = 0


Sides = tuple[tuple[str, ...], tuple[str, ...], tuple[str, ...]]  # training, validation, test


class Fold(NamedTuple):
    """Which of `parts` parts of the clients is tested, counted from 0."""

    number: int
    parts: int


class DataError(ValueError):
    """A problem with data that one sentence explains to the user."""


class Measures(NamedTuple):
    """What a task measures test clients by beside its metric, in a table of its own.

    Attributes:
      of_client: `of_client(support, query, before, after, seed)` returns, for one client, the named
        figures of each way to predict: {"before": {"name": figure, ...}, "after": the same}, and
        of whatever these are to be compared with, which is the same for every algorithm. A figure
        that a client does not have, or that is not finite, is left out. `support` and `query` are
        its examples `(x, y)`, `before` and `after` the model's predictions as functions of x, and
        `seed` an integer >= 0 for what is random.
      explanation: What the names mean, in Markdown.
      confusion: `confusion(query, predict)` returns how many of a client's query examples of each
        class are taken for which, int [classes, classes]; None: there are no classes.
    """

    of_client: Callable[..., Mapping[str, Mapping[str, float]]]
    explanation: str
    confusion: Callable[..., np.ndarray] | None = None


class Meaning(NamedTuple):
    """What the numbers of a task's model mean, for whoever uses the model elsewhere.

    Attributes:
      inputs: One example's x.
      target: One example's y.
      output: What the model returns for one example.
      channels: The names of x's last dimension; empty: it has none.
      ids_file: The file of `Task.assets` that says what the ids in x stand for; None: x has no ids.
      classes: The names of the logits in their order; empty: outputs are not classes, or their
        each client has classes of its own.
      classes_file: The file of `Task.assets` that has these names, where they are many.
      mean: Of a quantity in its own unit: target and output are (quantity - mean) / scale.
      scale: As `mean`.
    """

    inputs: str
    target: str
    output: str
    channels: Sequence[str] = ()
    ids_file: str | None = None
    classes: Sequence[str] = ()
    classes_file: str | None = None
    mean: float = 0.0
    scale: float = 1.0


@dataclasses.dataclass(frozen=True)
class Task:
    """A federated learning problem.

    Attributes:
      name: The data set's name, for example "emnist".
      data_source: Where the clients really come from: "tff" or "embedded".
      train_clients: Ids of the clients that train.
      validation_clients: Ids of the clients that settings are chosen on.
      test_clients: Ids of the clients that results are reported on. The three are disjoint.
      read_client: Reads one client afresh: `(x [n, ...], y [n, ...])`, the same at every call.
      build_keras_model: Builds an uncompiled model that returns logits. Every call, also inside
        a `tf.Graph`, starts from the same weights.
      build_loss: Builds the loss of `(y, logits)`.
      build_metrics: Builds the Keras metrics, `metric` among them.
      input_spec: The batched `(x, y)` as `tf.TensorSpec`s; the first dimension is unknown.
      metric: Name of the metric that is reported.
      higher_is_better: Whether a larger `metric` is the better one.
      split: How evaluation splits a client: "random", or "ordered" where its examples are in the
        order of time.
      assets: What the exported model needs beside it, such as a vocabulary: the name of a file and
        its content, a text or what JSON can hold.
      plot_client: Draws a client, where one can be drawn, into a plot of every run:
        `plot_client(axes, client_id, support, before, after)` with Matplotlib's axes, the examples
        `(x, y)` adapted on, and the model's predictions before and after as functions of x.
      days_of: Returns the day of each of a client's examples, datetime64[D] [n], where test clients
        are measured day by day, adapted on their past.
      build_front: Builds the layers in front of the network, the input first, which stay where a
        user's own network takes the place of the task's; None means the input alone.
      measures: What else test clients are measured by, if anything.
      meaning: What inputs and outputs mean, for `metadata.json` of exported models; None: not said.
      has_real_data: Whether there are real data that "embedded" ones stand in for. A task that is
        defined by how its data are made has none.
    """

    name: str
    data_source: str
    train_clients: tuple[str, ...]
    validation_clients: tuple[str, ...]
    test_clients: tuple[str, ...]
    read_client: Callable[[str], tuple[np.ndarray, np.ndarray]]
    build_keras_model: Callable[[], tf.keras.Model]
    build_loss: Callable[[], tf.keras.losses.Loss]
    build_metrics: Callable[[], list[tf.keras.metrics.Metric]]
    input_spec: tuple[Any, Any]
    metric: str = "accuracy"
    higher_is_better: bool = True
    split: str = "random"
    assets: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    plot_client: Callable[..., None] | None = None
    days_of: Callable[[str], np.ndarray] | None = None
    build_front: Callable[[], list[tf.keras.layers.Layer]] | None = None
    measures: Measures | None = None
    meaning: Meaning | None = None
    has_real_data: bool = True

    def model_fn(self) -> tff.learning.models.VariableModel:
        """Builds what TFF trains; everything in it is new at every call."""
        import tensorflow_federated as tff

        x, y = self.input_spec
        return tff.learning.models.from_keras_model(
            keras_model=self.build_keras_model(),
            loss=self.build_loss(),
            metrics=self.build_metrics(),
            input_spec=collections.OrderedDict(x=x, y=y),
        )


def split_clients(
    client_ids: Iterable[str],
    seed: int,
    num_test_clients: int | None = None,
    fold: Fold | None = None,
) -> Sides:
    """Splits clients into training, validation and test clients.

    A pure function of the set of ids, the seed and `num_test_clients`.

    Args:
      client_ids: At least three ids; their order and repetitions do not matter.
      seed: >= 0; fixes the permutation of the sorted ids. The first of it are test clients, the
        next validation clients (10 %, at least one), the rest train.
      num_test_clients: >= 1; None means 15 %, at least one.
      fold: The part of the permutation that is tested, in its place; each client is once.

    Returns:
      `(train, validation, test)`, disjoint and none of them empty.

    Raises:
      DataError: If there are too few clients for the three groups.
    """
    ids = sorted(set(client_ids))
    num_validation = max(1, round(VALIDATION_FRACTION * len(ids)))
    num_test = max(1, round(TEST_FRACTION * len(ids)))
    if num_test_clients is not None:
        num_test = num_test_clients
    if len(ids) < 3:
        raise DataError(
            f"At least 3 clients are needed (training, validation, test), but there are "
            f"{len(ids)}: use data with more clients."
        )
    if fold is not None:
        return _split_for_fold(ids, seed, fold)
    most = len(ids) - num_validation - 1
    if not 1 <= num_test <= most:
        raise DataError(
            f"The number of test clients must lie between 1 and {most} for {len(ids)} clients "
            f"({num_validation} of them validate, at least one trains), but it is {num_test}: "
            f"change num_test_clients."
        )
    order = [ids[i] for i in np.random.default_rng(seed).permutation(len(ids))]
    first_train = num_test + num_validation
    return (
        tuple(order[first_train:]),
        tuple(order[num_test:first_train]),
        tuple(order[:num_test]),
    )


def _split_for_fold(ids: list[str], seed: int, fold: Fold) -> Sides:
    if not 2 <= fold.parts <= len(ids):
        raise DataError(
            f"--folds must lie between 2 and {len(ids)}, the number of clients (which leaves out "
            f"one at a time), but is {fold.parts}."
        )
    order = [ids[i] for i in np.random.default_rng(seed).permutation(len(ids))]
    bounds = [len(order) * i // fold.parts for i in range(fold.parts + 1)]
    first, last = bounds[fold.number], bounds[fold.number + 1]
    rest = order[last:] + order[:first]  # so that those who validate change too
    num_validation = min(max(1, round(VALIDATION_FRACTION * len(ids))), len(rest) - 1)
    if num_validation < 1:
        raise DataError(
            f"--folds={fold.parts} leaves one of {len(ids)} clients beside those tested, but "
            "training and validation need one each: use more folds."
        )
    return tuple(rest[num_validation:]), tuple(rest[:num_validation]), tuple(order[first:last])


def number_clients(
    sizes: Mapping[str, int], num_test_clients: int | None, digits: int
) -> dict[str, tuple[str, ...]]:
    """Returns the ids of clients that are made from their ids, such as "train_00000".

    Args:
      sizes: How many clients there are in "train", "validation" and "test".
      num_test_clients: >= 1; None means as many as `sizes` says.
      digits: Of the number in an id.

    Raises:
      DataError: If `num_test_clients` is less than 1.
    """
    if num_test_clients is not None and num_test_clients < 1:
        raise DataError(f"num_test_clients must be >= 1, but is {num_test_clients}.")
    sizes = {**sizes, "test": num_test_clients or sizes["test"]}
    return {group: tuple(f"{group}_{i:0{digits}d}" for i in range(n)) for group, n in sizes.items()}


def initializer_seeds(seed: int, count: int) -> list[int]:
    """Returns a seed for each of `count` initializers of a model, from `seed` >= 0.

    Seeds of operations, unlike a global one, hold in any graph that the model is built in.
    """
    state = np.random.SeedSequence(seed).generate_state(count)
    return (state // 2).tolist()  # int32 for TensorFlow
