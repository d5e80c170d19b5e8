"""What the words of an answer rest on: how much likelier the picture makes each of them, and which
parts of the picture do. No heavy import."""
