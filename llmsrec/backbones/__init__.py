"""Training of the small embedded backbone.

Imported by the backbone stage alone.
"""
