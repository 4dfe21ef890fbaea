"""What is done to the pipeline so that nobody need fear it: faults injected into retrainings, and inputs made up."""
