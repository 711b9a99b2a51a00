"""Writing models in other formats: a slab of rows at a time, into files."""
