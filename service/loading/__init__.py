"""Owns the way from a file to a `keras.Model`: `loader.load` is the one door, judged before anything is built."""
