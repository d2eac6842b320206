"""From YAML files to one resolved, checked, frozen Configuration, and from two of those to a Plan.

``model`` is what the daemon uses; ``shape`` what people may write; ``document`` reads YAML with positions, of ``nodes``; ``expand``,
``units``, ``shorthand``, ``environment`` and ``resolve`` turn what was written into the model; ``rules`` checks keys against
each other and ``check`` the file against this machine; ``explain`` turns a mismatch into a sentence; ``diff`` compares.
"""
