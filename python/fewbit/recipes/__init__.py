"""Recipes: which tensor of a model is stored in which format."""
