"""Tables of files and labels in CSV: their form, their columns, their rows."""
