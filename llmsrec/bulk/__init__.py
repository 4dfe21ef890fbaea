"""The best items of every user, in a Parquet table.

Imported by the stage `recommend_all`, the API and benchmarks.
"""
