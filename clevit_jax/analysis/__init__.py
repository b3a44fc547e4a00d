"""What is done with a trained model, and how fast: exporting it, and timing it beside others."""
