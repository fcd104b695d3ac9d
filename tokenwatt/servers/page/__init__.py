"""A page of metrics read: which lines are wanted, and what they say."""
