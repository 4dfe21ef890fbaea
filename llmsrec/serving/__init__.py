"""The model bundle and what recommends from it.

Imported by stages and the command line.
"""
