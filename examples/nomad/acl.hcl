# For servers and clients: without a token nobody may do anything. `nomad acl bootstrap` gives the first token.
# For runs, in a namespace of their own:
#   nomad namespace apply hermes
#   nomad acl policy apply hermes-runs hermes-runs.policy.hcl
#   nomad acl token create -name hermes-runs -policy hermes-runs

acl {
  enabled = true
}
