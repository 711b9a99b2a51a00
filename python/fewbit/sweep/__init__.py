"""Measure many models in many formats on many texts, in several processes."""
