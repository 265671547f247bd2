# What is merged into the job of every sandbox: -B job=gpu-and-data.nomad.hcl
#
# Names, numbers and drivers are Hermes's; everything else that is said here counts.

job "sandbox" {
  constraint {
    attribute = "${attr.cpu.arch}"
    value     = "amd64"
  }

  affinity {
    attribute = "${node.class}"
    value     = "fast-disk"
    weight    = 50
  }

  group "sandbox" {
    volume "datasets" {
      type      = "host"
      source    = "datasets"
      read_only = true
    }

    task "daemon" {
      driver = "docker"

      volume_mount {
        volume      = "datasets"
        destination = "/data"
        read_only   = true
      }

      resources {
        device "nvidia/gpu" {
          count = 1
        }
      }
    }
  }
}
