"""What is wrong, or will be: the machine, the state folder, the engines, the ports, the power."""
