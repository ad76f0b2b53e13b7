"""`make serve`: a domain's champion over HTTP, on this machine, until it is stopped.

In the order of a request: `app.py` (HTTP), `batching.py` (requests of one moment in one pass), `model.py` (the pass),
`request_log.py` (what is kept of it). Beside them: `following.py` (which version answers), `server.py` (the process).
"""

import os

QUICK = {
    "OMP_NUM_THREADS": "1",  # a small model's pass gains nothing from a second thread, and loses where cores are busy
    "OMP_WAIT_POLICY": "passive",
    "THP_MEM_ALLOC_ENABLE": "1",  # torch's matrices in huge pages: multiplications by them take a quarter less time
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",  # the next look at the registry is seconds away
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "10",
    "SLMREC_MLFLOW_PATIENCE": "5",  # a training's patience is minutes, in which /health would not say what is wrong
}


def prepare_process() -> None:
    """Set what a server wants of torch and MLflow, unless the user has; call it before either is imported."""
    for name, value in QUICK.items():
        os.environ.setdefault(name, value)
