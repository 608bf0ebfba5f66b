"""The demo: an agent that needs no model."""
