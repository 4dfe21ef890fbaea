"""Benchmarks, each a command that compares the project with a reference in the same run; imported by tests alone.

Its last lines are JSON objects: name, ratio (how many times better than the reference), goal, met.
"""
