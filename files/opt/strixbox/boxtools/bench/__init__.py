"""Measuring a box: plans, runs, their results, and what may be concluded from them."""
