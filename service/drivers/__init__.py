"""Owns the drivers: what waits for requests and results, on an event loop, on a socket or in a Flask view."""
