"""Files that hold the images themselves: Parquet, Arrow, tars, and what TFDS prepared."""
