"""The configuration under its short name; bigbird_port.families.bigbird.config has it."""

from bigbird_port.families.bigbird.config import BigBirdConfig, config_from, read_config

__all__ = ["BigBirdConfig", "config_from", "read_config"]
