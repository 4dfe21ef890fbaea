"""The SQL engine (DuckDB or Spark) and the tables of interactions.

Imported by parsing and preprocessing.
"""
