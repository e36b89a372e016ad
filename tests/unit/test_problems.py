import json

import pytest

from service import errors
from service.api.problems import problem


@pytest.mark.parametrize(
    "cls",
    [
        errors.InvalidInput,
        errors.LayerNotFound,
        errors.BodyTooLarge,
        errors.ModelLoadFailed,
        errors.ServiceError,
    ],
)
def test_an_error_becomes_a_problem_document(cls):
    reply = problem(cls("Expected X. Received: Y."))
    assert (reply.status, reply.content_type, reply.headers) == (cls.status, "application/problem+json", {})
    assert json.loads(reply.body) == {
        "type": f"/docs#{cls.code}",
        "title": cls.title,
        "status": cls.status,
        "code": cls.code,
        "detail": "Expected X. Received: Y.",
    }


def test_details_are_members_unless_there_are_none():
    error = errors.UndecodableImage("part 1: broken", index=1, name="a.png", cause=None)
    document = json.loads(problem(error).body)
    assert (document["index"], document["name"]) == (1, "a.png")
    assert "cause" not in document


def test_a_full_queue_says_when_to_come_back():
    reply = problem(errors.QueueFull("full", retry_after_s=7))
    assert reply.headers == {"retry-after": "7"}
    assert json.loads(reply.body)["retry_after_s"] == 7
