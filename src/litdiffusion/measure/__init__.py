"""How good samples are: distances, the features that they are taken in, and both joined to a data set."""
