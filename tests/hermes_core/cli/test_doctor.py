from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.hermes_core.cli.conftest import Cli


@pytest.mark.namespaces
def test_it_says_what_works_and_what_to_do_about_the_rest(hermes: Cli) -> None:
    done = hermes("doctor", "--json", OPENAI_API_KEY="sk-secret-value", NOMAD_ADDR="http://127.0.0.1:1")
    findings = {finding["name"]: finding for finding in json.loads(done.stdout)}
    assert done.returncode == 0
    assert findings["bubblewrap"]["state"] == findings["namespaces"]["state"] == "ok"
    assert findings["nomad"]["state"] == "broken"
    assert "OPENAI_API_KEY" in findings["model keys"]["detail"]
    assert "sk-secret-value" not in done.stdout
    assert {"docker", "apptainer", "python"} <= set(findings)
    assert all(finding["hint"] for finding in findings.values() if finding["state"] != "ok")


def test_the_table_is_for_people(hermes: Cli) -> None:
    assert "what to do" in hermes("doctor").stdout
