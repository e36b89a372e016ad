"""Owns the list of what every model may refer to without bringing a custom_objects.py."""

from __future__ import annotations

from typing import Any

from service.loading.builtin_layers import FixedDropout, InstanceNormalization, L2Normalization, Scale
from service.loading.builtin_measures import (
    binary_focal_loss,
    coeff_determination,
    dice_coef,
    dice_loss,
    f1,
    f1_m,
    iou_coef,
    mcor,
    precision,
    recall,
    rmse,
)
from service.loading.crf import CRF


def builtin_objects() -> dict[str, Any]:
    """Name -> function or layer class, a new dict each time, ready for Keras' `custom_objects`."""
    functions = (mcor, precision, recall, f1, f1_m, dice_coef, dice_loss, iou_coef, rmse, coeff_determination)
    layers = (L2Normalization, Scale, InstanceNormalization, FixedDropout, CRF)
    objects: dict[str, Any] = {item.__name__: item for item in (*functions, binary_focal_loss, *layers)}
    # the same formulas under the other names by which they are commonly stored
    objects |= {"precision_m": precision, "recall_m": recall, "root_mean_squared_error": rmse}
    objects |= {"jaccard_coef": iou_coef, "dice_coef_loss": dice_loss, "L2Norm": L2Normalization}
    return objects
