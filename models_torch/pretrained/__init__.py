"""Between a folder and a model: loading, saving, and what every model can do."""
