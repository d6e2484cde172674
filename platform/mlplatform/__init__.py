"""The platform: spans, features, models and versions, whatever they are about.

TensorFlow reads its settings when it is imported, and other libraries (Beam among them) import it
on their own, so they are set here, before anything else can.
"""

import os

# tensorflow-recommenders needs Keras 2, which TensorFlow then takes from tf-keras.
os.environ.setdefault("TF_USE_LEGACY_KERAS", "1")
# Start-up chatter about CPU features and missing GPUs is silenced; errors are not.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "-1")
