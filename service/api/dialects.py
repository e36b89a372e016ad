"""Owns the list of dialects that are served beside the native API."""

from __future__ import annotations

from service.api.endpoint import Dialect, Limits
from service.api.openinference.dialect import OpenInference
from service.api.tfserving.dialect import TensorFlowServing


def every_dialect(
    limits: Limits, *, admin: bool = False, admin_key: str | None = None
) -> tuple[Dialect, ...]:
    """The dialects, each under its own prefix.

    Args:
        limits: sizes, the same for every dialect.
        admin: whether models may be put in and out of service over HTTP.
        admin_key: what whoever does that must know; `None`: only this machine may.
    """
    return (
        TensorFlowServing(limits),
        TensorFlowServing(limits, prefix="/V1"),
        OpenInference(limits, admin=admin, admin_key=admin_key),
    )
