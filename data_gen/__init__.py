"""The world: an app store's users and apps, whose hidden truth answers what is shown.

It imports neither the platform nor the application, and they see of it only what a store could
log: the tables in `observable/`. What is hidden stays in `truth/`.
"""
