# For servers and clients: everybody proves who they are. `nomad tls ca create` and `nomad tls cert create` make the files.
# Runs name theirs in NOMAD_CACERT, NOMAD_CLIENT_CERT and NOMAD_CLIENT_KEY.

tls {
  http = true
  rpc  = true

  ca_file   = "/etc/nomad.d/nomad-agent-ca.pem"
  cert_file = "/etc/nomad.d/agent.pem"
  key_file  = "/etc/nomad.d/agent-key.pem"

  verify_server_hostname = true
  verify_https_client    = true
}
