"""The two meanings of PAVE's weights, and what they are where the user does not say."""

from typing import Any

from sb3_pave.method.losses import PaveLosses

#: The weights, one a term
COEFS = tuple(f"{term}_coef" for term in PaveLosses._fields)

#: In the paper's units, which are the task's: where the authors start their search
PAPER = {"mpr_coef": 0.1, "vfc_coef": 0.1, "curv_coef": 0.01, "mpr_sigma": 0.01, "curv_delta": 1.0}
#: In units of the replayed data, see ``Scales``: one set for every task
SCALE_FREE = {"mpr_coef": 0.5, "vfc_coef": 0.005, "curv_coef": 0.03, "mpr_sigma": 0.01, "curv_delta": 0.005}


def default_weights(scale_free: Any) -> dict[str, float]:
    """
    :param scale_free: the units
    """
    return SCALE_FREE if scale_free else PAPER


def settle_weights(agent: Any) -> None:
    """
    Put the defaults of its units where an agent has None.

    :param agent: a PAVE agent, whose ``scale_free`` is a flag
    """
    for name, default in default_weights(agent.scale_free).items():
        if getattr(agent, name) is None:
            setattr(agent, name, default)


def weights_to_load(stored: dict[str, Any], given: dict[str, Any]) -> dict[str, Any]:
    """
    What ``load()`` is to be given beside its arguments, so that weights keep their meaning.

    A zip from before there were two meanings has the paper's. Where the user changes the meaning, weights that are not given
    become the other's defaults.

    :param stored: see ``stored.stored_data``
    :param given: the user's keyword arguments, and what else replaces stored data
    """
    if "mpr_coef" not in stored:
        return {}  # a plain agent's
    before = stored.get("scale_free", False)
    now = given.get("scale_free", before)
    if now != before:
        return {name: weight for name, weight in default_weights(now).items() if name not in given}
    return {} if "scale_free" in stored else {"scale_free": before}
