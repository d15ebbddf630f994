"""The acts of the scenario, a module for each: what happens, and what must then be true."""
