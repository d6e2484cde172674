"""What trained models compute when they serve: arrays and compiled loops, without TensorFlow.

A model says in its own file what its serving form is; a form is kept in the model's directory, is
mapped by every process that serves it, and is held to the exported model by `online/prepare.py`.
"""
