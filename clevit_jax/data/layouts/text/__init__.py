"""Lists of images in text files, and in MATLAB's, as published sets have them."""
