"""What the guide to Nomad and the package's README show is what there is."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest
from tests.hermes_backend_nomad.configurations import NOMAD, nomad, parsed, with_nomad

from hermes_backend_nomad import NomadConfig, NomadSingularityConfig
from hermes_core.sandbox import SlotSettings

ROOT = Path(__file__).resolve().parents[2]
EXAMPLES = ROOT / "examples" / "nomad"
GUIDE = ROOT / "docs" / "how-to" / "run-on-nomad.md"
README = ROOT / "packages" / "hermes-backend-nomad" / "README.md"
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def blocks(language: str) -> list[str]:
    return [text for name, text in BLOCK.findall(GUIDE.read_text()) if name == language]


def test_the_batch_job_is_a_script() -> None:
    [script] = blocks("bash")
    subprocess.run(["bash", "-n"], input=script, text=True, check=True)
    for name in re.findall(r"-config (\S+)", script):
        assert (EXAMPLES / name).exists()


def test_the_job_that_is_merged_in_is_one(tmp_path: Path) -> None:
    [job] = blocks("hcl")
    [group] = parsed(job)["job"][0]["sandbox"]["group"]
    assert group["sandbox"]["task"][0]["daemon"]["resources"][0]["device"] == [{"nvidia/gpu": {"count": 1}}]
    if NOMAD is not None:
        (tmp_path / "job.hcl").write_text(job)
        nomad("fmt", "-check", str(tmp_path / "job.hcl"))


def test_the_operators_steps_are_those_of_the_examples() -> None:
    steps = [line[2:] for line in "".join(blocks("console")).splitlines() if line.startswith("$ nomad ")]
    told = (EXAMPLES / "acl.hcl").read_text()
    for step in steps:
        if step.split()[1] in ("namespace", "acl") and "bootstrap" not in step:
            assert f"#   {step}\n" in told
    files = {word for step in steps for word in step.split() if word.endswith(".hcl")}
    assert files >= {"server.hcl", "client.hcl", "sandboxes.nodepool.hcl", "hermes-runs.policy.hcl"}
    assert all((EXAMPLES / file).exists() for file in files)


@pytest.mark.parametrize("config", [NomadConfig, NomadSingularityConfig])
def test_every_setting_is_in_the_readme_with_its_default(config: type[SlotSettings]) -> None:
    rows = re.findall(r"^\| (`.*?) \| (.*?) \|", README.read_text(), re.MULTILINE)
    told = {name: default for names, default in rows for name in re.findall(r"`(\w+)`", names)}
    for name, field in config.model_fields.items():
        if name in SlotSettings.model_fields:
            continue
        assert name in told
        if isinstance(field.default, (bool, int, float)):
            shown = str(field.default).lower() if isinstance(field.default, bool) else f"{field.default:g}"
            assert re.search(rf"\b{shown}\b", told[name]), name
    own = {*NomadConfig.model_fields, *NomadSingularityConfig.model_fields} - {*SlotSettings.model_fields}
    assert set(told) <= own


def test_settings_that_the_guide_names_exist() -> None:
    text = GUIDE.read_text()
    named = {*re.findall(r"-B '?\"?(\w+)", text)}
    assert len(named) > 20
    assert named <= {*NomadConfig.model_fields, *NomadSingularityConfig.model_fields}


@with_nomad
def test_variables_and_commands_of_the_guide_are_nomads_own() -> None:
    said = nomad("job", "status", "-help")
    for name in set(
        re.findall(r"NOMAD_(?:ADDR|NAMESPACE|REGION|TOKEN|CACERT|CAPATH|CLIENT_\w+|TLS_\w+)", GUIDE.read_text())
    ):
        assert name in said, name
