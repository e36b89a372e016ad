"""A site with all models for the suites that only ask, and its three drivers."""

import pytest
from drivers import open_site


@pytest.fixture(scope="module")
def site():
    with open_site() as site:
        yield site


@pytest.fixture(scope="module", params=["flask", "express"])
def driver(request, site):
    """A driver; what it answers has been compared with another one's answer, and so all three with each other."""
    return Compared(site, request.param)


class Compared:
    """Sends every request to two drivers, holds their answers against each other, and returns one of them.

    Equal are the status, the body and the headers that say what it is; the ids and times of two requests differ.
    """

    same_headers = ("content-type", "content-length", "allow", "retry-after")

    def __init__(self, site, name):
        self._first = getattr(site, name)
        self._second = site.express if name == "flask" else site.direct
        self.name = name

    def send(self, *request, **named):
        answer, other = self._first.send(*request, **named), self._second.send(*request, **named)
        assert (answer.status, answer.body) == (other.status, other.body)
        assert [answer.headers.get(name) for name in self.same_headers] == [
            other.headers.get(name) for name in self.same_headers
        ]
        return answer
