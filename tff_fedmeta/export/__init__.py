"""Trained models in the forms that others use: Keras, TensorFlow Lite and SavedModel.

Importing this needs no TensorFlow.
"""

KERAS, TFLITE, SAVEDMODEL = "keras", "tflite", "savedmodel"
FORMATS = (KERAS, TFLITE, SAVEDMODEL)
# What each is called in a run's `keras_model`; a SavedModel is a directory.
FILES = {KERAS: "model.keras", TFLITE: "adaptable.tflite", SAVEDMODEL: "savedmodel"}


class ConversionError(ValueError):
    """A form that cannot express a model; the message names the operation."""
