"""The quality of samples: distances of tensors, features of images, and both for a data set."""
