"""Grids of runs: environments, seeds, methods, from a specification to results, on one machine or many."""
