"""Owns the commands beside the service itself; each is run as `python -m service.tools.<name>`."""
