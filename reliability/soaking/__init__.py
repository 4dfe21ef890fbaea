"""Parts of the soak: a synthetic dataset, pipeline runs with faults, and the checks after them."""
