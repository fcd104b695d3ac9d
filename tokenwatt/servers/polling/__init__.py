"""The threads that ask the servers, once a period."""
