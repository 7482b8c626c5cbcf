"""Writers of weight files, one format a module: each gives plans (``bigbird_port.formats.file_plan``), not files."""
