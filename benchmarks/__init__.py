"""Benchmarks of agentrq against what people would use instead: ``python -m benchmarks [--quick] [--only N,…]``.

Each figure is a module of `benchmarks.figures` and measures ratios only: product and peer take turns in one run.
"""
