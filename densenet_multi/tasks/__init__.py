"""Complete tasks on real data: train, evaluate, predict, convert; a command shows each result."""
