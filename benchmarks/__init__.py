"""Each module is a command that measures one thing against a reference in the same run.

The last lines are one JSON object a figure: name, ratio (how many times better than the reference), goal, met.
"""
