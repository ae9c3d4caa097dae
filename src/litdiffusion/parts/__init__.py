"""Descriptions of the parts of a model, from which they can be created again."""
