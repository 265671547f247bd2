"""The small languages that the stand-in reads: filters, templates, job specifications."""

from __future__ import annotations

from typing import Any

import pytest
from tests.stand_ins.nomad.documents import RequestError, duration
from tests.stand_ins.nomad.filters import compiled
from tests.stand_ins.nomad.hcl import parse_job
from tests.stand_ins.nomad.templates import MissingVariable, read_environment, render

DOC: dict[str, Any] = {"ID": "a-1", "Meta": {"owner": "me", "x.y": "z"}, "Tags": ["p", "q"], "Stop": False, "Count": 3}


@pytest.mark.parametrize(
    "text",
    [
        'ID == "a-1"',
        "ID == `a-1`",
        'ID != "b"',
        'ID matches "^a-[0-9]$"',
        'Meta.owner == "me" and Tags contains "p"',
        'Meta["x.y"] == "z"',
        'ID == "b" or (Stop == false and Count == 3)',
        'not ID == "b" and ID not matches "^b"',
        '"q" in Tags and "r" not in Tags',
        "Meta is not empty and Nothing is empty",
    ],
)
def test_filters_that_match(text: str) -> None:
    assert compiled(text)(DOC)


@pytest.mark.parametrize("text", ['ID == "b"', 'Meta.other == "me"', 'Tags not contains "p"', "Stop == true"])
def test_filters_that_do_not_match(text: str) -> None:
    assert not compiled(text)(DOC)


@pytest.mark.parametrize("text", ["ID", "ID ==", '(ID == "a"', 'ID == "a" and', 'ID near "a"'])
def test_filters_that_are_none(text: str) -> None:
    with pytest.raises(RequestError) as caught:
        compiled(text)
    assert caught.value.status == 400


def rendered(text: str, **variables: dict[str, str]) -> str:
    return render({"EmbeddedTmpl": text}, variables.get, {"HOME": "/root"})


def test_templates() -> None:
    text = 'A={{ with nomadVar "v" }}{{ .a }}-{{ index . "b-c" }}{{ end }} {{- env "HOME" }}\n'
    assert rendered(text, v={"a": "1", "b-c": "2"}) == "A=1-2/root\n"
    with pytest.raises(MissingVariable):
        rendered(text)


def test_the_environment_of_a_template() -> None:
    assert read_environment('# no\nA=1\nexport B="two words"\n\nC=a=b\n') == {"A": "1", "B": "two words", "C": "a=b"}


def test_lengths_of_time() -> None:
    written = [duration(int(seconds * 10**9)) for seconds in (0, 0.5, 5, 18.25, 90, 3600)]
    assert written == ["0s", "500ms", "5s", "18.25s", "1m30s", "1h0m0s"]


SPECIFICATION = """
variable "image" {
  default = "app:1"
}
job "j" {
  datacenters = ["dc1", "dc2"]
  node_pool   = "gpu"
  namespace   = "n"
  affinity {
    attribute = "${node.class}"
    value     = "big"
    weight    = 70
  }
  group "g" {
    count = 2
    constraint {
      distinct_hosts = true
    }
    network {
      mode = "host"
      port "rpc" {}
      port "web" {
        static = 80
        to     = 8080
      }
    }
    volume "data" {
      type   = "host"
      source = "disk"
    }
    reschedule {
      attempts  = 0
      unlimited = false
    }
    task "t" {
      driver = "docker"
      config {
        image = var.image
        mount {
          type   = "bind"
          target = "/x"
        }
      }
      env {
        A = "b"
      }
      artifact {
        source      = "http://host/x.tar.gz"
        destination = "local/x"
        options {
          checksum = "md5:1"
        }
      }
      volume_mount {
        volume      = "data"
        destination = "/data"
      }
      resources {
        cpu = 500
        device "nvidia/gpu" {
          count = 2
        }
      }
      template {
        destination = "local/f"
        data        = <<-EOT
          line "one"
            line two
        EOT
      }
      kill_timeout = "1m30s"
    }
  }
}
"""


def test_a_specification() -> None:
    job = parse_job(SPECIFICATION)
    [group] = job["TaskGroups"]
    [task] = group["Tasks"]
    assert (job["Datacenters"], job["NodePool"], job["Namespace"]) == (["dc1", "dc2"], "gpu", "n")
    assert job["Affinities"] == [{"LTarget": "${node.class}", "RTarget": "big", "Operand": "=", "Weight": 70}]
    assert group["Constraints"][0]["Operand"] == "distinct_hosts"
    [network] = group["Networks"]
    assert [port["Label"] for port in network["DynamicPorts"]] == ["rpc"]
    assert (network["ReservedPorts"][0]["Value"], network["ReservedPorts"][0]["To"]) == (80, 8080)
    assert group["Volumes"]["data"] == {"Name": "data", "Type": "host", "Source": "disk"}
    assert group["ReschedulePolicy"] == {"Attempts": 0, "Unlimited": False}
    assert task["Config"] == {"image": "app:1", "mount": [{"type": "bind", "target": "/x"}]}
    assert task["Artifacts"][0]["GetterOptions"] == {"checksum": "md5:1"}
    assert task["VolumeMounts"] == [{"Volume": "data", "Destination": "/data"}]
    assert task["Resources"]["Devices"] == [{"Name": "nvidia/gpu", "Count": 2}]
    assert task["Templates"][0]["EmbeddedTmpl"] == 'line "one"\n  line two\n'
    assert task["KillTimeout"] == 90 * 10**9


@pytest.mark.parametrize("text", ["job {", 'group "g" {}', 'job "j" {\n  nothing = 1\n}'])
def test_a_specification_that_is_none(text: str) -> None:
    with pytest.raises(RequestError) as caught:
        parse_job(text)
    assert caught.value.status == 400
    assert caught.value.text.startswith("Failed to parse job")
