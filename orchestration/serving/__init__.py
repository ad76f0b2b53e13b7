"""`make serve`: a domain's champion over HTTP, on this machine, until it is stopped.

In the order of a request: `app.py` (HTTP), `batching.py` (requests of one moment in one pass), `model.py` (the pass),
`request_log.py` (what is kept of it). Beside them: `following.py` (which version answers), `server.py` (the process).
"""
