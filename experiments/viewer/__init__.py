"""The viewer: runs, episodes and training in a browser, from a folder of runs.

`records` is what pages are given, `library` reads it from disk, `*_page` make it, `server` answers for it. Imported by
the verbs `view` and `fork` alone.
"""
