"""The frameworks as their users meet them: whole calls, caches, text, files, and the ways in which a model runs."""
