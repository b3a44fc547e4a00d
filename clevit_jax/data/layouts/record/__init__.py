"""Records of images: lists in JSON, JSON lines, and tables of metadata beside the images."""
