"""All SQL, a module per noun. `database` holds the pool and the transaction; every function takes a connection."""
