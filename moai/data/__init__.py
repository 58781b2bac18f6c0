"""Read data sets and lists of images, perceive them, and choose an example of a split."""
