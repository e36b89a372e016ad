import pytest
from numpy_engine import build_runtime

from service.api.tfserving.routes import Target, about, inference
from service.errors import InvalidRequest, ModelLoading, ModelNotFound, VersionNotFound


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("/v1/models/half:predict", ("predict", Target("half"))),
        ("/v1/models/half:classify", ("classify", Target("half"))),
        ("/v1/models/half/versions/3:regress", ("regress", Target("half", version=3))),
        ("/v1/models/half/versions/007:regress", ("regress", Target("half", version=7))),
        ("/v1/models/half/labels/canary:predict", ("predict", Target("half", label="canary"))),
        ("/V1/MODELS/Half/Labels/Canary:PREDICT", ("predict", Target("Half", label="Canary"))),
        ("/v1/models/half:explain", ("explain", Target("half"))),
        ("/v1/models/a b.c:predict", ("predict", Target("a b.c"))),
        ("/v1/models/versions:predict", ("predict", Target("versions"))),
    ],
)
def test_paths_of_inference(path, expected):
    assert inference(path) == expected
    assert about(path) is None


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("/v1/models/half", (False, Target("half"))),
        ("/v1/models/half/metadata", (True, Target("half"))),
        ("/v1/models/half/versions/3", (False, Target("half", version=3))),
        ("/v1/models/half/versions/3/metadata", (True, Target("half", version=3))),
        ("/v1/models/half/labels/canary/METADATA", (True, Target("half", label="canary"))),
        ("/v1/models", (False, Target(""))),
        ("/v1/models/metadata", (False, Target("metadata"))),
        ("/v1/models/versions/3", (False, Target("", version=3))),
    ],
)
def test_paths_of_documents(path, expected):
    assert about(path) == expected
    assert inference(path) is None


@pytest.mark.parametrize(
    "path",
    [
        "/v1",
        "/v1/",
        "/v1/models/",
        "/v1/foo",
        "/v1/models/half:",
        "/v1/models/half:train",
        "/v1/models/half:predict/",
        "/v1/models/half:predict\n",
        "/v1/models/half/version/3:predict",
        "/v1/models/half/versions/x:predict",
        "/v1/models/half/versions/-1:predict",
        "/v1/models/half/versions/\u0663:predict",
        "/v1/models/half/versions/3/labels/a:predict",
        "/v1/models/half/label/a:predict",
        "/v1/models/a/b:predict",
        "/v1/models/a:b:predict",
        "/v1/models/:predict",
        "/v2/models/half:predict",
        "x/v1/models/half:predict",
    ],
)
def test_other_paths_mean_nothing(path):
    assert inference(path) is None
    assert about(path) is None


@pytest.mark.parametrize("version", [str(2**63), str(2**64 - 1), "9" * 5000])
def test_a_version_beyond_64_bits_is_refused(version):
    for read, suffix in ((inference, ":predict"), (about, "")):
        with pytest.raises(InvalidRequest, match="Failed to convert version") as caught:
            read(f"/v1/models/half/versions/{version}{suffix}")
        assert len(caught.value.message) < 300
    assert inference(f"/v1/models/half/versions/{2**63 - 1}:predict") is not None


@pytest.fixture(scope="module")
def runtime():
    runtime = build_runtime("iris", "line")
    yield runtime
    runtime.stop()


def test_the_version_that_answers(runtime):
    assert Target("iris").served(runtime).version == 1
    assert Target("iris", version=1).served(runtime) is Target("iris").served(runtime)


@pytest.mark.parametrize(
    ("target", "error", "message"),
    [
        (Target("half"), ModelNotFound, "Servable not found for request: Latest(half)"),
        (Target("half", version=2), ModelNotFound, "Servable not found for request: Specific(half, 2)"),
        (Target("iris", version=2), VersionNotFound, "Servable not found for request: Specific(iris, 2)"),
        (Target("iris", label="new"), InvalidRequest, "Unrecognized servable version label: new"),
    ],
)
def test_what_is_not_served_is_told_in_the_words_that_clients_look_for(runtime, target, error, message):
    with pytest.raises(error) as caught:
        target.served(runtime)
    assert caught.value.message == message


def test_a_model_that_loads_is_not_unknown():
    runtime = build_runtime("iris", load=False)
    try:
        with pytest.raises(ModelLoading):
            Target("iris").served(runtime)
    finally:
        runtime.stop()
