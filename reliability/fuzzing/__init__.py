"""What `python -m reliability.fuzz` is made of: inputs, rules, parsers and shrinking."""
