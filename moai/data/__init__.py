"""Perceive data sets and lists of images, and draw the demo picture."""
