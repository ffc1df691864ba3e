"""Models that come with the package, and the programs that made them.

A folder here holds one model: safetensors, configuration, tokenizer, and a README that says how it was made, how well
it does and what its digest is. ``countdown/`` is the starting model of the recipe ``countdown_cpu``, made by
``python -m progrpo.models.warm_start``. To add a model, write a module here that makes it, add its folder, and give the
folder a name in :data:`progrpo.sampling.models.SHIPPED`, so that recipes can say ``model.path = NAME``.
"""
