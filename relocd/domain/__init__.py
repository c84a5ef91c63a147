"""Domains as text: the files that administrators write (file), the records that hosts exchange (record)."""
