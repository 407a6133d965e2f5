"""D-SINK on sets whose labels nobody made wrong: their own noise, with better labels beside it."""
