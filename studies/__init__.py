"""Studies: variants of systems trained once, evaluated alike, in one table. `python -m studies` lists them.

Nothing imports this package; DVC and people run it from the project's root.
"""
