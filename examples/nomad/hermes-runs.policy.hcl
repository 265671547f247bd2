# What a run may do, in a namespace that is Hermes's own: NOMAD_NAMESPACE=hermes, NOMAD_TOKEN=…

namespace "hermes" {
  capabilities = [
    "list-jobs", "read-job", "parse-job", "submit-job", # sandboxes are jobs; -B job=FILE is parsed by the agent
    "alloc-lifecycle",                                  # stopping one
    "read-logs", "read-fs",                             # last lines of a sandbox that failed
  ]

  variables {
    # Tokens of sandboxes, which their own jobs read without any policy.
    path "nomad/jobs/*" {
      capabilities = ["read", "write", "list", "destroy"]
    }

    # Which runs live.
    path "hermes/*" {
      capabilities = ["read", "write", "list", "destroy"]
    }
  }
}

# What jobs of the users' own mount (-B job=FILE): volumes of the nodes, each by its name.
host_volume "datasets" {
  policy = "read"
}

# The version of Nomad is looked at; both of these may be left out.
agent {
  policy = "read"
}

# `hermes doctor` looks at what drivers nodes have.
node {
  policy = "read"
}
