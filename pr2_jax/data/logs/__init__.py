"""From the files of a log to checked, typed tables. `log_tables.read_log` is the entry; the way has six steps:

1. `sources` finds the files of each table, in a directory or a zip; `streams` opens and decompresses them.
2. `records` cuts a file into blocks of records; `scanning` counts the records of a CSV by its bytes.
3. `mapping` says which column of the file is which of ours; `parsing` makes typed cells and flags the faulty ones.
4. `reading` keeps each good row of a table once; `quarantine` collects the bad rows, `TableCount` counts all of them.
5. `log_tables` joins the tables to `LogTables` and keys sessions; `word_lists` and `text` number the words.
6. `data/store/assemble.py` turns raw ids into rows: `LogStore.from_tables`. `data/ingest/ingest.py` writes the store.
"""
