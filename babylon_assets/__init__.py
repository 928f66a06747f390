"""babylon_assets: turns every closed window of an environment's record into a better agent.

Each window is a partition of a Dagster graph: trajectories are read, scored, frozen into a dataset and trained into the
next checkpoint of a chain. What a scorer, an environment or a training backend of your own needs is imported from here;
`__init__.pyi` lists it. A name is looked up when it is asked for: importing the package loads, reads and opens nothing.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
