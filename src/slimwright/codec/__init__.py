"""Pictures on their way to a server: a codec with learned probabilities, in two modes. docs/codec.md says how it works."""
