"""What pyproject.toml cannot say: the recipes of `configs/` are installed inside the package.

So no package with a name as common as `configs` lies beside those of other projects. In a clone,
also an installed one (`pip install --editable .`), they are read where they are.
"""

from setuptools import find_namespace_packages, setup

setup(
    packages=[*find_namespace_packages(include=["clevit_jax*"]), "clevit_jax.configs"],
    package_dir={"clevit_jax.configs": "configs"},
)
