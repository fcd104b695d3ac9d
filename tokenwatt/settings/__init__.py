"""The settings: their model, where they come from, and what is said when they are wrong."""
