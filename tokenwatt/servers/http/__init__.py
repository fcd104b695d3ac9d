"""One server over HTTP: a kept connection, its answers, its address and who we are to it."""
