"""The mode `report`: one HTML file on a run, that opens from disk.

`collect` computes and reads what it says (`content`), `page` renders that, `write` writes the file.
"""
