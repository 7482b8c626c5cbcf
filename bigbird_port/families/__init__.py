"""Model families: what of a model is data, so that no other room names a head, a tap or a layer."""
