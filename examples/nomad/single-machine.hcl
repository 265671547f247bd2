# A server and a client at once, for one machine alone: nomad agent -config single-machine.hcl
#
# `hermes sandbox nomad-dev` writes the same, for folders and ports of your own, and starts it. There is no token: whoever
# can reach its port on this machine may run anything as the user who started it.

name                 = "hermes-dev"
data_dir             = "/var/lib/hermes/nomad"
bind_addr            = "127.0.0.1"
disable_update_check = true

ports {
  http = 4646
  rpc  = 4647
  serf = 4648
}

# Loopback is advertised only when it is said.
advertise {
  http = "127.0.0.1"
  rpc  = "127.0.0.1"
  serf = "127.0.0.1"
}

server {
  enabled          = true
  bootstrap_expect = 1

  # What -B memory_max=MB needs.
  default_scheduler_config {
    memory_oversubscription_enabled = true
  }
}

client {
  enabled = true

  # Ports of tasks are on loopback too; otherwise they would be on the first network card.
  network_interface = "lo"

  # Otherwise it would be beside data_dir.
  alloc_mounts_dir = "/var/lib/hermes/nomad/alloc_mounts"

  # They ask addresses that answer in clouds only.
  options = {
    "fingerprint.denylist" = "env_aws,env_gce,env_azure,env_digitalocean,consul,vault"
  }
}

# For the backend nomad-singularity.
plugin "raw_exec" {
  config {
    enabled = true
  }
}

# For the backend nomad.
plugin "docker" {
  config {
    # The defaults, and sys_admin: with it a sandbox covers the masked /proc before it gives up every capability for good.
    # Without it slots have the isolation level `user`.
    allow_caps = [
      "audit_write", "chown", "dac_override", "fowner", "fsetid", "kill", "mknod", "net_bind_service",
      "setfcap", "setgid", "setpcap", "setuid", "sys_chroot", "sys_admin",
    ]

    # For the daemon's runtime folder, and for -B volumes.
    volumes {
      enabled = true
    }

    gc {
      # Images stay when the last container of theirs has ended.
      image = false

      # Two agents of one machine would remove each other's containers.
      dangling_containers {
        enabled = false
      }
    }
  }
}
