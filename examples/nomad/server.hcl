# One of three servers; the same file on each of them: nomad agent -config server.hcl -config tls.hcl -config acl.hcl
#
# Servers keep what the cluster knows and decide what runs where. Three bear the loss of one.

data_dir             = "/opt/nomad"
bind_addr            = "0.0.0.0"
datacenter           = "dc1"
disable_update_check = true

server {
  enabled          = true
  bootstrap_expect = 3

  server_join {
    retry_join = ["nomad-1.example", "nomad-2.example", "nomad-3.example"]
  }

  # What servers tell each other is encrypted with a key that all of them have: nomad operator gossip keyring generate
  # encrypt = "…"

  # After a change of leader a client that says nothing counts as lost after this long. Runs need not wait for it: they
  # judge a sandbox by its own connection.
  failover_heartbeat_ttl = "1m"

  default_scheduler_config {
    # What -B memory_max=MB needs.
    memory_oversubscription_enabled = true

    # Let jobs of a higher -B priority=N take the place of others. A sandbox that has to go ends its trajectories as
    # sandbox_error, and they are tried again elsewhere.
    preemption_config {
      batch_scheduler_enabled = true
    }
  }
}
