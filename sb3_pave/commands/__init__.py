"""The commands of ``sb3-pave``, a module each: parse, call, print."""
