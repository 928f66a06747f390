"""Our own tables in the schema `babylon_training`, and PostgreSQL, embedded or given.

Plain functions over an open connection, one module per table or pair of tables.
"""
