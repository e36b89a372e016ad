"""Owns the dialect of TensorFlow Serving's REST API, which KServe's V1 protocol shares."""
