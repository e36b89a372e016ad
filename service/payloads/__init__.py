"""Owns the way between bytes and arrays; it knows models only by what they take."""
