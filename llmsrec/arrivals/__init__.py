"""New files from an inbox into the raw data.

Imported by stages alone.
"""
