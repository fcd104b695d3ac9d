"""A simulated node: GPUs whose power follows the load, and servers that speak HTTP like vLLM. Everything it shows says so."""
