"""Loss and metrics of a table's label. All add up over examples, however these are cut.

Labels are [n], or, where rows have weights, [n, 2]: label and weight. Weights count in the loss
alone; metrics are over rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import tensorflow as tf

OF_CLASSES = ("accuracy", "balanced_accuracy", "macro_f1")
OF_QUANTITIES = ("mae", "rmse")


def label_of(y: Any) -> Any:
    """Returns labels [n] of labels [n] or of labels and weights [n, 2]."""
    return y[:, 0] if len(y.shape) == 2 else y


def cross_entropy(
    class_weights: Sequence[float] | None = None, weighs_rows: bool = False
) -> tf.keras.losses.Loss:
    """Builds the loss of a classification, on logits.

    Args:
      class_weights: What an example of each class counts; None: each the same.
      weighs_rows: Whether labels have weights beside them.
    """
    import tensorflow as tf

    if class_weights is None and not weighs_rows:
        return tf.keras.losses.SparseCategoricalCrossentropy(from_logits=True)

    def of_example(y_true: Any, y_pred: Any) -> Any:
        classes = tf.cast(label_of(y_true), tf.int32)
        losses = tf.keras.losses.sparse_categorical_crossentropy(classes, y_pred, from_logits=True)
        if class_weights is not None:
            losses *= tf.gather(tf.constant(class_weights, losses.dtype), classes)
        return losses

    return _of_examples(of_example, weighs_rows)


def squared_error(weighs_rows: bool = False) -> tf.keras.losses.Loss:
    """Builds the loss of a regression; `weighs_rows` as in `cross_entropy`."""
    import tensorflow as tf

    if not weighs_rows:
        return tf.keras.losses.MeanSquaredError()
    return _of_examples(lambda y, output: tf.square(output[:, 0] - label_of(y)), weighs_rows)


def _of_examples(of_example: Any, weighs_rows: bool) -> tf.keras.losses.Loss:
    """Returns the mean over a batch of what each example costs, times its weight."""
    import tensorflow as tf

    class OfExamples(tf.keras.losses.Loss):
        def call(self, y_true: Any, y_pred: Any) -> Any:
            losses = of_example(y_true, y_pred)
            return losses * tf.cast(y_true[:, 1], losses.dtype) if weighs_rows else losses

    return OfExamples()


def of_classes(num_classes: int, weighs_rows: bool = False) -> list[tf.keras.metrics.Metric]:
    """Builds accuracy, balanced accuracy and macro F1, the latter two over classes that occur.

    Args:
      num_classes: How many there are.
      weighs_rows: Whether labels have weights beside them.
    """
    import tensorflow as tf

    class Accuracy(tf.keras.metrics.SparseCategoricalAccuracy):
        def update_state(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> Any:
            return super().update_state(label_of(y_true), y_pred, sample_weight)

    class OfConfusion(tf.keras.metrics.Metric):
        """A figure of the confusion matrix: counts of (class, predicted class)."""

        def __init__(self, name: str, num_classes: int, dtype: Any = None) -> None:
            super().__init__(name, dtype)
            self._num_classes = num_classes
            self._counts = self.add_weight(
                "counts", shape=(num_classes, num_classes), initializer="zeros"
            )

        def update_state(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> Any:
            del sample_weight
            classes = tf.cast(label_of(y_true), tf.int32)
            found = tf.math.confusion_matrix(
                classes, tf.argmax(y_pred, -1), self._num_classes, dtype=tf.float32
            )
            return self._counts.assign_add(found)

        def result(self) -> tf.Tensor:
            right = tf.linalg.diag_part(self._counts)
            there = tf.reduce_sum(self._counts, axis=1)
            called = tf.reduce_sum(self._counts, axis=0)
            occurs = tf.cast(there > 0, tf.float32)
            parts = there if self.name == "balanced_accuracy" else (there + called) / 2
            figures = tf.math.divide_no_nan(right, parts)
            return tf.math.divide_no_nan(tf.reduce_sum(figures * occurs), tf.reduce_sum(occurs))

        def reset_state(self) -> None:
            self._counts.assign(tf.zeros_like(self._counts))  # Keras' own assigns a scalar

        def get_config(self) -> dict[str, Any]:
            return {"name": self.name, "num_classes": self._num_classes, "dtype": self.dtype}

    kind = Accuracy if weighs_rows else tf.keras.metrics.SparseCategoricalAccuracy
    return [
        kind(name="accuracy"),
        OfConfusion("balanced_accuracy", num_classes),
        OfConfusion("macro_f1", num_classes),
    ]


def of_quantities(scale: float) -> list[tf.keras.metrics.Metric]:
    """Builds MAE and RMSE in the label's units, where y is standardised by `scale`."""
    import tensorflow as tf

    class InUnits(tf.keras.metrics.Metric):
        """Errors of all rows in the label's units; stands before the Keras metric of them."""

        def __init__(self, scale: float, name: str, dtype: Any = None) -> None:
            super().__init__(name, dtype)
            self._scale = scale

        def update_state(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> Any:
            # As columns: of two vectors Keras would count one error, that of the whole batch.
            y_true, y_pred = tf.reshape(label_of(y_true), [-1, 1]), tf.reshape(y_pred, [-1, 1])
            return super().update_state(y_true, y_pred, sample_weight)

        def result(self) -> tf.Tensor:
            return self._scale * super().result()

        def get_config(self) -> dict[str, Any]:
            return {"scale": self._scale, "name": self.name, "dtype": self.dtype}

    class AbsoluteError(InUnits, tf.keras.metrics.MeanAbsoluteError):
        pass

    class RootSquaredError(InUnits, tf.keras.metrics.RootMeanSquaredError):
        pass

    return [AbsoluteError(scale, "mae"), RootSquaredError(scale, "rmse")]
