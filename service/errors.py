"""Owns every error that can reach a user: its HTTP status, its machine-readable code and its message.

The tree, as `status code`:

    LayertapError
    ├── RequestError                 the client can mend it
    │   ├── InvalidRequest           400 invalid_request
    │   │   ├── InvalidJson          400 invalid_json
    │   │   ├── InvalidParameter     400 invalid_parameter
    │   │   ├── InvalidInput         400 invalid_input
    │   │   ├── InputRejected        400 input_rejected_by_model
    │   │   ├── ModelRequired        400 model_required
    │   │   ├── LayerRequired        400 layer_required
    │   │   └── ReplyTooLarge        400 reply_too_large
    │   ├── AdminOff                 403 admin_off
    │   ├── AdminRefused             403 admin_refused
    │   ├── HostNotAllowed           403 host_not_allowed
    │   ├── NotFound                 404 not_found
    │   │   ├── ModelNotFound        404 model_not_found
    │   │   ├── VersionNotFound      404 version_not_found
    │   │   └── LayerNotFound        404 layer_not_found
    │   ├── MethodNotAllowed         405 method_not_allowed
    │   ├── NotAcceptable            406 not_acceptable
    │   ├── RequestTimedOut          408 request_timeout
    │   ├── BodyTooLarge             413 body_too_large
    │   │   └── GrowthTooLarge       413 growth_too_large
    │   ├── TargetTooLong            414 target_too_long
    │   ├── UnsupportedMedia         415 unsupported_media_type
    │   ├── UndecodableImage         422 image_not_decodable
    │   │   └── ImageTooLarge        422 image_too_large
    │   ├── QueueFull                429 queue_full
    │   │   ├── MemoryFull           429 memory_full
    │   │   └── TooManyConnections   429 too_many_connections
    │   └── HeadTooLarge             431 head_too_large
    ├── ServiceError                 500 internal_error
    │   ├── InferenceFailed          500 inference_failed
    │   ├── EngineStopped            500 engine_stopped
    │   ├── NotSupported             501 not_supported
    │   ├── NotReady                 503 not_ready
    │   │   ├── ModelLoading         503 model_loading
    │   │   ├── ModelLoadFailed      503 model_load_failed
    │   │   └── ModelUnloaded        503 model_unloaded
    │   └── DeadlineExceeded         504 deadline_exceeded
    └── SetupError                   never crosses HTTP by itself
        ├── SettingsError            a setting is unknown or has an impossible value
        ├── RepositoryError          the models folder or a model.toml is wrong
        └── LoadError                a model file could not be loaded; `mend` says what would help

Messages read "Expected X. Received: Y."
"""

from __future__ import annotations

from typing import Any, ClassVar


class LayertapError(Exception):
    """The root; `details` holds further members for the problem document."""

    status: ClassVar[int] = 500
    code: ClassVar[str] = "internal_error"
    title: ClassVar[str] = "Internal error"

    def __init__(self, message: str, **details: Any) -> None:
        super().__init__(message)
        self.message = message
        self.details = details


class RequestError(LayertapError):
    """Something about the request that its sender can mend."""

    status = 400
    code = "invalid_request"
    title = "Invalid request"


class InvalidRequest(RequestError):
    """The request is malformed in a way that has no code of its own."""


class InvalidJson(InvalidRequest):
    """The body was announced as JSON and is not."""

    code = "invalid_json"
    title = "Invalid JSON"


class InvalidParameter(InvalidRequest):
    """A query parameter is unknown or has an impossible value."""

    code = "invalid_parameter"
    title = "Invalid parameter"


class InvalidInput(InvalidRequest):
    """Rank, shape, dtype, names or values do not fit the model's inputs."""

    code = "invalid_input"
    title = "Input does not fit the model"


class InputRejected(InvalidRequest):
    """The model itself refused the values, for example an Embedding index out of range."""

    code = "input_rejected_by_model"
    title = "The model rejected the input"


class ModelRequired(InvalidRequest):
    """Several models are served and the request names none."""

    code = "model_required"
    title = "Name a model"


class LayerRequired(InvalidRequest):
    """No layer was named and the model has no default one."""

    code = "layer_required"
    title = "Name a layer"


class ReplyTooLarge(InvalidRequest):
    """The reply would exceed `max_reply_bytes`."""

    code = "reply_too_large"
    title = "The reply would be too large"


class AdminOff(RequestError):
    """What models are served can be changed over HTTP only with the setting `admin`."""

    status = 403
    code = "admin_off"
    title = "Administration is off"


class AdminRefused(RequestError):
    """Who asks may not administer: the `admin_key` is missing or wrong, or there is none and they are elsewhere."""

    status = 403
    code = "admin_refused"
    title = "Administration is refused"


class HostNotAllowed(RequestError):
    """The Host header has a name that is not among `allowed_hosts`."""

    status = 403
    code = "host_not_allowed"
    title = "Host not allowed"


class NotFound(RequestError):
    """Nothing is served at this path."""

    status = 404
    code = "not_found"
    title = "Not found"


class ModelNotFound(NotFound):
    """No model of this name is in the repository."""

    code = "model_not_found"
    title = "Model not found"

    def __init__(self, message: str, *, name: str = "", **details: Any) -> None:
        super().__init__(message, **details)
        self.name = name


class VersionNotFound(NotFound):
    """The model exists, but this version of it is not served."""

    code = "version_not_found"
    title = "Version not found"


class LayerNotFound(NotFound):
    """The model has no layer of this name."""

    code = "layer_not_found"
    title = "Layer not found"


class MethodNotAllowed(RequestError):
    """The path exists, with other methods."""

    status = 405
    code = "method_not_allowed"
    title = "Method not allowed"


class NotAcceptable(RequestError):
    """The Accept header asks for what this reply cannot be."""

    status = 406
    code = "not_acceptable"
    title = "Not acceptable"


class RequestTimedOut(RequestError):
    """The request came too slowly: its head took longer than `header_timeout_s`, or no more came of its body."""

    status = 408
    code = "request_timeout"
    title = "Request timeout"


class TargetTooLong(RequestError):
    """The request's target exceeds `max_target_bytes`."""

    status = 414
    code = "target_too_long"
    title = "Target too long"


class BodyTooLarge(RequestError):
    """The body exceeds `max_body_bytes`, as sent or once unpacked."""

    status = 413
    code = "body_too_large"
    title = "Body too large"


class GrowthTooLarge(BodyTooLarge):
    """What becomes of the body in memory is out of proportion to what was sent."""

    code = "growth_too_large"
    title = "The body grows too much"


class UnsupportedMedia(RequestError):
    """The Content-Type is none that this model takes."""

    status = 415
    code = "unsupported_media_type"
    title = "Unsupported media type"


class UndecodableImage(RequestError):
    """The bytes are not an image, or a broken one."""

    status = 422
    code = "image_not_decodable"
    title = "Image cannot be decoded"


class ImageTooLarge(UndecodableImage):
    """The image has more than `max_image_pixels`."""

    code = "image_too_large"
    title = "Image too large"


class QueueFull(RequestError):
    """Too many rows wait already; `retry_after_s` says when to try again."""

    status = 429
    code = "queue_full"
    title = "Too many requests"

    def __init__(self, message: str, *, retry_after_s: int = 1) -> None:
        super().__init__(message, retry_after_s=retry_after_s)
        self.retry_after_s = retry_after_s


class MemoryFull(QueueFull):
    """All requests together hold `max_memory_bytes`."""

    code = "memory_full"
    title = "Too much memory is in use"


class TooManyConnections(QueueFull):
    """More connections than `max_connections`, and none of them can be spared."""

    code = "too_many_connections"
    title = "Too many connections"


class HeadTooLarge(RequestError):
    """The request's head exceeds `max_head_bytes` or `max_headers`, or a body in chunks consists of little else."""

    status = 431
    code = "head_too_large"
    title = "Head too large"


class ServiceError(LayertapError):
    """The service failed; the client did nothing wrong."""


class InferenceFailed(ServiceError):
    """The model raised on a valid input."""

    code = "inference_failed"
    title = "Inference failed"


class EngineStopped(ServiceError):
    """The engine thread ended; the worker replaces itself."""

    code = "engine_stopped"
    title = "The engine stopped"


class NotSupported(ServiceError):
    """A dialect has a word for it, and this service cannot do it."""

    status = 501
    code = "not_supported"
    title = "Not supported"


class NotReady(ServiceError):
    """The service is starting or draining."""

    status = 503
    code = "not_ready"
    title = "Not ready"


class ModelLoading(NotReady):
    """This model is still loading."""

    code = "model_loading"
    title = "The model is loading"


class ModelLoadFailed(NotReady):
    """This model failed to load; the message says what would mend it."""

    code = "model_load_failed"
    title = "The model failed to load"


class ModelUnloaded(NotReady):
    """This model was taken out of service on request, or is just being."""

    code = "model_unloaded"
    title = "The model was unloaded"


class DeadlineExceeded(ServiceError):
    """The request's time ran out before its reply was there."""

    status = 504
    code = "deadline_exceeded"
    title = "Deadline exceeded"


class SetupError(LayertapError):
    """Something the operator can mend; it never crosses HTTP by itself."""

    code = "setup_error"


class SettingsError(SetupError):
    """A setting is unknown or has an impossible value."""


class RepositoryError(SetupError):
    """The models folder or a model.toml is wrong."""


class LoadError(SetupError):
    """A model file could not be loaded.

    Args:
        message: what is wrong with the file.
        mend: what its owner can do about it, one sentence.
    """

    def __init__(self, message: str, *, mend: str = "") -> None:
        super().__init__(message)
        self.mend = mend
