"""Interactions to splits: k-core, leave-one-out, candidates, expectations.

Imported by the split stage, and its candidates by studies and generation.
"""
