"""Split inference: the first layers on a phone, a few bytes over a link, the other layers on a server."""
