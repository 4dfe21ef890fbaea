"""What the soak is made of: a shop, runs that are struck, and what must hold after them."""
