"""Opens models as the service does, without its counters."""

from service.engines.choice import EngineOptions
from service.repository import scan
from service.serving.opening import open_model


def opened(folder, *, tolerance=1e-4, **options):
    """What `open_model` makes of the model in a folder.

    Args:
        folder: of the model; the one above it is the models folder.
        tolerance: of TensorFlow's engine, relative to an output's scale.
        options: of `EngineOptions`.
    """
    [entry] = [entry for entry in scan(folder.parent) if entry.name == folder.name]
    return open_model(
        entry,
        entry.versions[0],
        buckets_to=None,
        tolerance=tolerance,
        on_trace=lambda: None,
        on_padding=lambda _: None,
        engine_options=EngineOptions(**options),
    )
