"""Choose codes and scales by what they do to a product's output, not weight by weight."""
