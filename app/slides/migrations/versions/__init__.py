"""One file a step, each fixed once it was released."""
