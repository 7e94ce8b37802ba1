"""mixup: distills large pools of mediocre instruction data into small sets that train better."""

__version__ = "0.1.0"
