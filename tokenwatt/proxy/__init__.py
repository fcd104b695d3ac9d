"""The metering reverse proxy: a byte-transparent tunnel, and beside it an observer that reads ``usage`` and nothing else.

``tunnel`` moves bytes. ``observer`` gets copies, follows HTTP/1.1 in them (``heads``, ``bodies``) and finds tokens in answers (``answers``,
``usage``). ``reporter`` tells a meter of them. What the observer does or fails to do never reaches the tunnel.
"""
