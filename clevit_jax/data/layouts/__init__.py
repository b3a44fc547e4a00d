"""Layouts of data sets: a reader for each, by kind, and here what they share."""
