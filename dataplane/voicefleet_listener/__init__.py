"""TCP listeners that nobody exhausts without a key: what every HTTP listener of every process is opened with.

::

    accept ─▶ door (place by address and in all, PROXY header, TLS within a deadline)
                └─▶ guard (bytes of a head, deadlines for heads, bodies and readers) ─▶ aiohttp
"""
