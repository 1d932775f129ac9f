"""Estimators in scikit-learn's manner, over the same runs.

This module covers: ``StreamFeat``, which fits and transforms paths and in-memory frames.
This module does *not* cover: the run itself (pipeline).
"""

from streamfeat.estimators.streamfeat import StreamFeat

__all__ = ["StreamFeat"]
