"""Supervision: the driver of one process, its monitors, and the daemon that holds them together.

``process`` is one task with one mailbox and one deadline around the pure machine of ``core``; ``run`` is one
incarnation of it; ``monitors`` watch and post inputs, nothing else; ``supervisor`` knows all processes and applies
plans; ``bus`` numbers what changed; ``daemon`` is the lifetime around it.
"""
