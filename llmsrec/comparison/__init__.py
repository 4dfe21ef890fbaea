"""Studies: systems trained once, evaluated alike, in one table.

Imported by stages and the command line.
"""
