"""What these tests need, said before they begin."""

from importlib.util import find_spec

import pytest

from tests.integration.servers import program

PROGRAMS = ("initdb", "postgres", "pg_isready", "createdb")
PACKAGES = ("boto3", "compose", "dagster_k8s", "dagster_postgres", "moto", "psycopg2")


def pytest_configure() -> None:
    if missing := [name for name in PROGRAMS if not program(name)]:
        raise pytest.UsageError(f"{', '.join(missing)} missing: install PostgreSQL (`apt-get install postgresql`).")
    if missing := [name for name in PACKAGES if not find_spec(name)]:
        raise pytest.UsageError(f"{', '.join(missing)} missing: `make integration` installs the extra `integration`.")
