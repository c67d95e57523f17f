"""The name of an agent's run folder: that of its class, where SB3 would take the host's."""

import inspect
from typing import TYPE_CHECKING, Any

from sb3_pave.algorithms.signatures import HostsSignature
from sb3_pave.algorithms.upstream import is_of_upstream


class NamedAfterClass:
    """The host's ``learn()``; where that is SB3's, ``tb_log_name`` is the class's name unless given."""

    if not TYPE_CHECKING:  # whose readers find the host's

        @HostsSignature
        def learn(self, *args: Any, **kwargs: Any) -> Any:
            """As the host's; where that is SB3's, ``tb_log_name`` is the class's name unless given."""
            host_learn = super().learn
            if is_of_upstream(host_learn):
                given = inspect.signature(host_learn).bind(*args, **kwargs)
                if given.arguments.get("tb_log_name") is None:
                    given.arguments["tb_log_name"] = type(self).__name__
                args, kwargs = given.args, given.kwargs
            return host_learn(*args, **kwargs)
