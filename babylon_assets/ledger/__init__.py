"""The store: PostgreSQL, embedded or given, and our own tables in the schema `babylon_training`.

Plain functions over an open connection, one module per table or pair of tables. The game's tables are not known here.
"""
