# An agent of an ordinary user, on nodes of an HPC cluster that a batch job was given. The rest is on its command line, since it
# differs from node to node: see docs/how-to/run-on-nomad.md.
#
# Without root there are no control groups and no other users: sandboxes are processes of whoever started the agent. Leave
# -B user out. What -B cpu, memory and disk ask for is only counted; the limits of slots are kept by their daemon.

data_dir             = "/tmp/hermes-nomad" # on a disk of the node, yours alone: -data-dir
disable_update_check = true

# Others have accounts on these machines, and raw_exec runs what it is told as you.
acl {
  enabled = true
}

client {
  enabled = true

  options = {
    "driver.allowlist"     = "raw_exec"
    "fingerprint.denylist" = "env_aws,env_gce,env_azure,env_digitalocean,consul,vault"
  }
}

plugin "raw_exec" {
  config {
    enabled = true
  }
}
