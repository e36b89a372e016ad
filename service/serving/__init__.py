"""Owns what is served: models, their states and functions, and how that changes; `runtime` is the facade."""
