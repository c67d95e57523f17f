"""Where hyperparameters are kept."""

from pathlib import Path


def hyperparams_folder(package_file: str | None) -> Path:
    """
    :param package_file: ``__file__`` of a package, of the zoo or of PAVE
    :return: its folder of hyperparameters: inside the package where it was installed, beside it in a source tree
    """
    assert package_file is not None
    package = Path(package_file).parent
    inside = package / "hyperparams"
    return inside if inside.is_dir() else package.parent / "hyperparams"
