"""One module a figure or group: ``FIGURES`` (its numbers) and ``run(quick, wanted) → (rows, notes)``."""
