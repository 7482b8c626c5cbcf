"""BigBird: encoder of one stack, LayerNorm after each sublayer, eight heads."""
