"""Systems side by side on one store (SPEC 8): trained once, ranked alike, tested in pairs, shown."""
