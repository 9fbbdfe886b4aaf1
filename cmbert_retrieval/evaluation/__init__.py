"""Measuring how well something is found: sets, measures, suites, and what was expected of them."""
