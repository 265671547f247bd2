"""What an agent refuses is said with where to change it."""

from __future__ import annotations

import pytest
import requests
from nomad.api import exceptions

from hermes_backend_nomad._address import Address
from hermes_backend_nomad._errors import PassingError, explain


def refusal(status: int, text: str) -> exceptions.BaseNomadException:
    response = requests.Response()
    response.status_code, response._content = status, text.encode()
    return exceptions.BaseNomadException(response)


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        ('1 error occurred: * job "x" is in nonexistent node pool "gpu"', "-B node_pool=NAME"),
        ('1 error occurred: * job "x" is in nonexistent namespace "team"', "NOMAD_NAMESPACE"),
        ("No path to region", "NOMAD_REGION"),
    ],
)
def test_what_is_not_on_the_cluster_is_named_by_its_setting(text: str, hint: str) -> None:
    error = explain(refusal(500, text), Address("http://127.0.0.1:1"), "register the job x")
    assert not isinstance(error, PassingError)
    assert hint in str(error.hint)
