"""Owns the queue and the batches: rows in, batches out, each job ended once. It knows no HTTP and no TensorFlow."""
