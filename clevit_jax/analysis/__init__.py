"""What a trained model says: predictions, features, maps of where it looks, the report."""
