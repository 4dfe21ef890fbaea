"""Errors, configuration, files and progress lines.

Every package may import it; it imports none.
"""
