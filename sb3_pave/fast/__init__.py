"""The numbers of ``method`` and of the hosts' networks, sooner. Nothing here is needed to be right."""
