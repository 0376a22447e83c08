"""Trained models in the forms that others use: Keras and TensorFlow Lite.

Importing this needs no TensorFlow.
"""

KERAS, TFLITE = "keras", "tflite"
FORMATS = (KERAS, TFLITE)
