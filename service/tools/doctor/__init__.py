"""Owns the doctor: what a model file is, holds and needs, told without TensorFlow and without running any of it."""
