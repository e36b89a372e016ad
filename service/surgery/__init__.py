"""Owns what is inside a model: `cut` makes functions of any of its tensors, `layer_listing` says what there is."""
