"""A stand-in for a Nomad agent: an HTTP server with the endpoints that the backend uses, which really runs tasks.

It is not Nomad. `python -m tests.stand_ins.nomad --data-dir D --port P` starts one; tests start it with
`tests.stand_ins.nomad.fixtures`.
"""
