"""Loss and metrics of a table's label. All add up over examples, however these are cut."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import tensorflow as tf

OF_CLASSES = ("accuracy", "balanced_accuracy", "macro_f1")
OF_QUANTITIES = ("mae", "rmse")


def cross_entropy() -> tf.keras.losses.Loss:
    """Builds the loss of a classification, on logits."""
    import tensorflow as tf

    return tf.keras.losses.SparseCategoricalCrossentropy(from_logits=True)


def of_classes(num_classes: int) -> list[tf.keras.metrics.Metric]:
    """Builds accuracy, balanced accuracy and macro F1, the latter two over classes that occur."""
    import tensorflow as tf

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
            found = tf.math.confusion_matrix(
                tf.reshape(y_true, [-1]), tf.argmax(y_pred, -1), self._num_classes, dtype=tf.float32
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

    return [
        tf.keras.metrics.SparseCategoricalAccuracy(name="accuracy"),
        OfConfusion("balanced_accuracy", num_classes),
        OfConfusion("macro_f1", num_classes),
    ]


def of_quantities(scale: float) -> list[tf.keras.metrics.Metric]:
    """Builds MAE and RMSE in the label's units, where y is standardised by `scale`."""
    import tensorflow as tf

    class AbsoluteError(tf.keras.metrics.MeanAbsoluteError):
        def __init__(self, scale: float, name: str = "mae", dtype: Any = None) -> None:
            super().__init__(name, dtype)
            self._scale = scale

        def update_state(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> Any:
            # As columns: of two vectors Keras would count one error, that of the whole batch.
            y_true, y_pred = tf.reshape(y_true, [-1, 1]), tf.reshape(y_pred, [-1, 1])
            return super().update_state(y_true, y_pred, sample_weight)

        def result(self) -> tf.Tensor:
            return self._scale * super().result()

        def get_config(self) -> dict[str, Any]:
            return {"scale": self._scale, "name": self.name, "dtype": self.dtype}

    class RootSquaredError(tf.keras.metrics.RootMeanSquaredError):
        def __init__(self, scale: float, name: str = "rmse", dtype: Any = None) -> None:
            super().__init__(name, dtype)
            self._scale = scale

        def result(self) -> tf.Tensor:
            return self._scale * super().result()

        def get_config(self) -> dict[str, Any]:
            return {"scale": self._scale, "name": self.name, "dtype": self.dtype}

    return [AbsoluteError(scale), RootSquaredError(scale)]
