"""Owns the paths under `/v1`: which model, which version of it, and what is asked.

Source: tensorflow_serving/model_servers/http_rest_api_util.cc of TensorFlow Serving, whose two patterns match the
whole path, letters of either case; a name, a version and a label keep theirs. KServe V1 adds `:explain`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from service.errors import InvalidRequest, ModelNotFound, VersionNotFound
from service.serving.runtime import Runtime
from service.serving.served import ModelStatus, ServedModel

PREDICT, CLASSIFY, REGRESS, EXPLAIN = "predict", "classify", "regress", "explain"
_SCOPE = r"(?:/versions/(?P<version>[0-9]+)|/labels/(?P<label>[^/:]+))?"
_INFERENCE = re.compile(
    rf"/v1/models/(?P<model>[^/:]+){_SCOPE}:(?P<verb>classify|regress|predict|explain)", re.IGNORECASE
)
_ABOUT = re.compile(rf"/v1/models(?:/(?P<model>[^/:]+))?{_SCOPE}(?P<metadata>/metadata)?", re.IGNORECASE)
_MAX_VERSION = 2**63 - 1
_MAX_TOLD = 200


@dataclass(frozen=True, slots=True)
class Target:
    """The model that a path names.

    Args:
        model: its name; empty where the path has none.
        version: the number in the path.
        label: the label in the path; never beside a version.
    """

    model: str
    version: int | None = None
    label: str | None = None

    def status(self, runtime: Runtime) -> ModelStatus:
        """The model's status.

        Raises:
            ModelNotFound: in the words that clients of TensorFlow Serving look for.
        """
        try:
            return runtime.status(self.model)
        except ModelNotFound as error:
            raise ModelNotFound(f"Servable not found for request: {self._told(self.version)}") from error

    def number(self, status: ModelStatus) -> int | None:
        """The version that is meant; `None` means the highest.

        Raises:
            InvalidRequest: no version has this label.
        """
        if self.label is None:
            return self.version
        if self.label not in status.labels:
            raise InvalidRequest(f"Unrecognized servable version label: {self.label[:_MAX_TOLD]}")
        return status.labels[self.label]

    def served(self, runtime: Runtime) -> ServedModel:
        """The version that answers.

        Raises:
            ModelNotFound, VersionNotFound: in the words that clients of TensorFlow Serving look for.
            InvalidRequest: no version has this label.
            NotReady: the model loads, or has failed to.
        """
        version = self.number(self.status(runtime))
        try:
            return runtime.resolve(self.model, version)
        except VersionNotFound as error:
            raise VersionNotFound(f"Servable not found for request: {self._told(version)}") from error

    def _told(self, version: int | None) -> str:
        name = self.model[:_MAX_TOLD]
        return f"Latest({name})" if version is None else f"Specific({name}, {version})"


def inference(path: str) -> tuple[str, Target] | None:
    """The verb of a path that models are run by, in lower case, and the model; `None` for any other path.

    Raises:
        InvalidRequest: the version has more digits than a version can have.
    """
    match = _INFERENCE.fullmatch(path)
    return None if match is None else (match["verb"].lower(), _target(match))


def is_status(path: str) -> bool:
    """Whether a path names a model, or a version of it, and nothing more."""
    found = _ABOUT.fullmatch(path)
    return found is not None and found["model"] is not None and found["metadata"] is None


def about(path: str) -> tuple[bool, Target] | None:
    """Whether a path asks for metadata rather than the status, and the model; `None` for any other path.

    Raises:
        InvalidRequest: the version has more digits than a version can have.
    """
    match = _ABOUT.fullmatch(path)
    return None if match is None else (match["metadata"] is not None, _target(match))


def malformed(method: str, path: str) -> InvalidRequest:
    """The error for a path or a method that means nothing here."""
    return InvalidRequest(f"Malformed request: {method[:_MAX_TOLD]} {path[:_MAX_TOLD]}")


def _target(match: re.Match[str]) -> Target:
    version = match["version"]
    if version is None:
        return Target(match["model"] or "", label=match["label"])
    if len(version.lstrip("0")) > len(str(_MAX_VERSION)) or int(version) > _MAX_VERSION:
        raise InvalidRequest(f"Failed to convert version: {version[:_MAX_TOLD]} to numeric.")
    return Target(match["model"] or "", version=int(version))
