"""Owns the dialects: modules that turn requests into arrays and results into replies, without waiting."""
