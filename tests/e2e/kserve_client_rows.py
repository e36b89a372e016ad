"""Owns the rows that KServe's SDK sends, for both environments that need them: the SDK's and the tests'."""

import numpy as np

ROWS = np.array([[5.1, 3.5, 1.4, 0.2], [6.7, 3.0, 5.2, 2.3]], np.float32)
DIGIT = np.eye(28, dtype=np.float32).reshape(1, 28, 28, 1)
