"""Recorded learning curves, and searches replayed on them without training."""
