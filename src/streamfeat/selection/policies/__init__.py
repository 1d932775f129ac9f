"""Selection policies: which sets of columns a training set suggests.

This module covers: the registry.
This module does *not* cover: choosing among a policy's sets, or testing them (selector).

A policy is a function from the Grams of some blocks to sets of columns, sparse to rich. Sets at the
same place must be comparable between training sets: the selector takes the place by
cross-validation. A policy that decides for itself gives one set.
"""

from __future__ import annotations

from streamfeat.selection.policies import elastic_net, forward, lasso, probes, stability, subset
from streamfeat.selection.policies.problem import Policy, Problem

POLICIES: dict[str, tuple[Policy, ...]] = {
    "auto": (lasso.policy, forward.policy),
    "lasso": (lasso.policy,),
    "elastic_net": (elastic_net.policy,),
    "forward": (forward.policy,),
    "subset": (subset.policy,),
    "stability": (stability.policy,),
    "probes": (probes.policy,),
}
"""By name; where there are several, the one with the least cross-validated error is taken."""

__all__ = ["POLICIES", "Policy", "Problem"]
