"""Analyses of a trained model: predictions, features, maps of where it looks, the report."""
