"""How the pipeline fares when the world does not keep to the rules: commands that try it."""
