# One of any number of clients, on which sandboxes run: nomad agent -config client.hcl -config tls.hcl -config acl.hcl
#
# It must be root, for control groups, mounts and users.

data_dir             = "/opt/nomad"
bind_addr            = "0.0.0.0"
datacenter           = "dc1"
disable_update_check = true

client {
  enabled = true

  # A pool of its own keeps sandboxes, which run what models write, away from the machines of other work:
  # nomad node pool apply sandboxes.nodepool.hcl, and -B node_pool=sandboxes
  node_pool = "sandboxes"

  server_join {
    retry_join = ["nomad-1.example", "nomad-2.example", "nomad-3.example"]
  }

  # What is left to the machine itself. Nomad's own helpers take about 140 MB more for each sandbox.
  reserved {
    cpu    = 500
    memory = 1024
    disk   = 4096
  }

  # Sandboxes are reached by their node's address and a port out of these: let runs through to them.
  min_dynamic_port = 20000
  max_dynamic_port = 32000

  # A folder that jobs may mount by name; see gpu-and-data.nomad.hcl. It must be there, or the agent does not start.
  host_volume "datasets" {
    path      = "/srv/datasets"
    read_only = true
  }
}

# For the backend nomad-singularity. Who may submit jobs here may run any program as any user but root.
plugin "raw_exec" {
  config {
    enabled          = true
    denied_host_uids = "0"
  }
}

# For the backend nomad.
plugin "docker" {
  config {
    # The defaults, and sys_admin: with it a sandbox covers the masked /proc before it gives up every capability for good.
    allow_caps = [
      "audit_write", "chown", "dac_override", "fowner", "fsetid", "kill", "mknod", "net_bind_service",
      "setfcap", "setgid", "setpcap", "setuid", "sys_chroot", "sys_admin",
    ]

    # For a runtime folder on the node (-B runtime=FOLDER), and for -B volumes. It lets jobs mount any folder of the node;
    # without it the runtime folder has to be in the image (-B runtime=image:FOLDER).
    volumes {
      enabled = true
    }

    gc {
      image = false
    }
  }
}
