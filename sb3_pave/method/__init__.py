"""The paper: the action-gradient field, the three terms, and what they are evaluated at. Pure functions of tensors."""
