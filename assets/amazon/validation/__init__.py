"""What must hold of the data, as Great Expectations suites: a module a suite, and no table is changed here.

How rules are stated and run is `rules.py`'s subject, how results become pages `docs.py`'s. The names of the checks are
constants, so that they can be declared without importing Great Expectations, which takes seconds.
"""
