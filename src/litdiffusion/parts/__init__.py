"""What every part of a model can say of itself."""
