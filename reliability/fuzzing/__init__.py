"""Parts of the fuzzer: generated inputs, rules, checks of each parser, and shrinking."""
