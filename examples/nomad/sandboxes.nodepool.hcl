# nomad node pool apply sandboxes.nodepool.hcl

node_pool "sandboxes" {
  description = "Machines that run sandboxes of Hermes, and nothing else"
}
