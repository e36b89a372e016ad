"""Owns the repairs of single layers that Keras 2 and tf.keras wrote, and that Keras 3 reads otherwise or not at all.

Each function repairs one cause and says which writers have it. Source, where none is named: the same layer in
keras-team/keras@2.2.4, keras-team/tf-keras@v2.21.0 and Keras 3.15.1.
"""

from __future__ import annotations

from service.loading.legacy.arguments import MERGES
from service.loading.legacy.record import Entry, Record, layer_name, unrepairable

_RENAMED = {
    "BatchNormalizationV1": "BatchNormalization",
    "BatchNormalizationV2": "BatchNormalization",
    "SyncBatchNormalization": "BatchNormalization",  # differs in training only
    "RandomHeight": "Identity",  # a random size in training, nothing otherwise
    "RandomWidth": "Identity",
}
_REPLACED = {
    "ThresholdedReLU": "layertap>ThresholdedReLU",
    "LocallyConnected1D": "layertap>LocallyConnected1D",
    "LocallyConnected2D": "layertap>LocallyConnected2D",
}
_ONE_AXIS = {"BatchNormalization", "Concatenate", "GroupNormalization"}
_OLD_BILINEAR = ("2.0.", "2.1.", "2.2.", "2.3.")


def renamed_classes(entry: Entry, record: Record) -> None:
    """tf.keras: class names of several versions of one layer, and layers that only act in training."""
    kind = entry["class_name"]
    if kind in _RENAMED:
        entry["class_name"] = _RENAMED[kind]
        record.changed("renamed", f"{kind} runs as {_RENAMED[kind]}", layer_name(entry))


def dropped_classes(entry: Entry, record: Record) -> None:
    """All before Keras 3: layers that Keras 3 dropped, served by layers of this package."""
    kind = entry["class_name"]
    if kind in _REPLACED:
        entry["class_name"] = _REPLACED[kind]
        record.changed("replaced", f"{kind}, which Keras 3 lacks, is computed by Layertap", layer_name(entry))


def leaky_slope(entry: Entry, _: Record) -> None:
    """All before Keras 3: LeakyReLU's `alpha` is `negative_slope` now."""
    if entry["class_name"] == "LeakyReLU" and "alpha" in entry["config"]:
        entry["config"]["negative_slope"] = entry["config"].pop("alpha")


def one_axis(entry: Entry, _: Record) -> None:
    """tf.keras: an axis in a list of one, where Keras 3 takes a number."""
    axis = entry["config"].get("axis")
    if entry["class_name"] not in _ONE_AXIS or not isinstance(axis, list):
        return
    if len(axis) != 1:
        raise unrepairable(
            entry, f"axis={axis}", "Merge these axes with a Reshape before the layer, and save it again."
        )
    entry["config"]["axis"] = axis[0]


def bilinear_upsampling(entry: Entry, record: Record) -> None:
    """Keras 2.2.3-2.3.1: bilinear UpSampling2D put pixels' corners, not their centres, onto each other.

    Source: keras-team/keras@2.3.1 `keras/backend/tensorflow_backend.py`, resize_images (TensorFlow 1's
    `resize_bilinear`); tf.keras of TensorFlow 2 and Keras 3 resize by centres.
    """
    version, config = str(record.origin.version), entry["config"]
    bilinear = entry["class_name"] == "UpSampling2D" and config.get("interpolation") == "bilinear"
    if bilinear and version.startswith(_OLD_BILINEAR) and not version.endswith("-tf"):
        entry["class_name"] = "layertap>CornerUpSampling2D"
        record.changed("bilinear", "enlarged as TensorFlow 1 did, by the pixels' corners", layer_name(entry))


def masks_of_merged(entry: Entry, record: Record) -> None:
    """All before Keras 3: a merged step counts if it counts in all inputs; in Keras 3, if it does in any.

    Source: `compute_mask` in keras-team/keras@2.2.4 `keras/layers/merge.py` (K.all) and in
    keras/src/layers/merging/base_merge.py of Keras 3.15.1 (logical_or). Only models with masks are changed.
    """
    if record.makes_masks and entry["class_name"] in MERGES:
        record.changed(
            "merged-masks", "a step is masked where any input masks it, as before Keras 3", layer_name(entry)
        )
        entry["class_name"] = f"layertap>{entry['class_name']}"


def causal_attention(entry: Entry, record: Record) -> None:
    """tf.keras before 2.10: `causal` was an argument of the layer; now it is one of the call."""
    if entry["class_name"] in {"Attention", "AdditiveAttention"} and entry["config"].pop("causal", False):
        entry.setdefault("call_arguments", {})["use_causal_mask"] = True
        record.changed("causal", "attention looks back only, as its config says", layer_name(entry))


def category_encoding(entry: Entry, _: Record) -> None:
    """tf.keras before 2.6: CategoryEncoding's and Discretization's arguments had other names."""
    kind, config = entry["class_name"], entry["config"]
    if kind == "CategoryEncoding":
        if "max_tokens" in config:
            config.setdefault("num_tokens", config.pop("max_tokens"))
        if config.get("output_mode") == "binary":
            config["output_mode"] = "multi_hot"
    if kind == "Discretization" and "bins" in config:
        config.setdefault("bin_boundaries", config.pop("bins"))
