"""Fault injection into retrainings (`soak`) and fuzzing of the parsers (`fuzz`); imported by tests alone."""
