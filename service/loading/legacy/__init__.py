"""Owns the repairs of configs and weights that Keras 1, 2 and tf.keras wrote, so that Keras 3 builds the same model.

`repair` and what it needs import no Keras, so that a file is judged in milliseconds; the layers that stand in
for those that Keras 3 dropped are in modules of their own and are imported only when a model needs them.
"""

from service.loading.legacy.origin import Origin, Repaired
from service.loading.legacy.outline import refuse_misshapen
from service.loading.legacy.pipeline import repair

__all__ = ["Origin", "Repaired", "refuse_misshapen", "repair"]
