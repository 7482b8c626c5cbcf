"""The values of weights: in canonical form, compared, judged, summarised."""
