"""Which device serves which server, and in what shares."""
