"""The mode `report`: what a run has come to, as one HTML file that opens from disk."""
