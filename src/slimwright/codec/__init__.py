"""Pictures on their way to a server: a codec with learned probabilities, in two modes, as docs/codec.md tells."""
