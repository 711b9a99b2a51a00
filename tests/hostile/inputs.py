"""Make hostile inputs: golden models with something changed; a seed and a number give the same."""

from __future__ import annotations

import shutil
import struct
import warnings
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from random import Random

import fewbit
from tests.golden.loading import MODELS, SHARED
from tests.hostile.gguf_file import change_gguf, change_safetensors
from tests.hostile.values import change_bytes, change_json

WEIGHTS = "model.safetensors"
JSON = (
    "config.json",
    "config.json",
    "tokenizer.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "generation_config.json",
)
RECIPES = ("Q8_0", "Q4_0", "Q4_K_M", "IQ4_XS", "Q2_K", "Q5_1", "TQ1_0", "F16", "BF16", "MXFP4")
"""Recipes of the GGUF files that are made of the models; a model may refuse one."""


@dataclass(frozen=True)
class Seeds:
    """The valid models that inputs are made of."""

    folders: list[Path]
    files: list[Path]
    matrices: list[Path]


def prepare(target: Path, few: bool = False) -> Seeds:
    """Find the golden models, and write those of the repository as GGUF files into `target`.

    With `few` only two of them.
    """
    target.mkdir(parents=True, exist_ok=True)
    folders = [path for path in sorted(MODELS.iterdir()) if (path / WEIGHTS).exists()]
    shared = sorted(SHARED.glob("*/" + WEIGHTS)) if SHARED.is_dir() else []
    known = {path.name for path in folders}
    folders += [path.parent for path in shared if path.parent.name not in known]
    folders, files = folders[: 2 if few else None], []
    for number, folder in enumerate(folders):
        model = fewbit.load(folder, "cpu", threads=1)
        for recipe in (None, RECIPES[number % len(RECIPES)]):
            file = target / f"{folder.name}-{recipe}.gguf"
            with suppress(fewbit.FewbitError), warnings.catch_warnings():  # some do not fit
                warnings.simplefilter("ignore")
                if not file.exists():
                    (model.quantize(recipe) if recipe else model).save(file)
                files.append(file)
    matrices = [MODELS / "llama" / "imatrix.gguf", target / "imatrix.dat"]
    matrices[1].write_bytes(_dat(fewbit.read_imatrix(matrices[0])))
    return Seeds(folders, files, matrices)


def _dat(importance: fewbit.CollectedImatrix) -> bytes:
    """An importance matrix in the older form."""
    out = struct.pack("<i", len(importance))
    for name, values in importance.items():
        out += struct.pack("<i", len(name)) + name.encode()
        out += struct.pack("<ii", 1, values.size) + values.astype("<f4").tobytes()
    return out + struct.pack("<ii", 3, 4) + b"text"


def make(seeds: Seeds, seed: int, number: int, target: Path) -> Path:
    """Write input `number` of `seed` into the empty folder `target`; return its path."""
    rng = Random(f"{seed}/{number}")
    kind = rng.randrange(20)
    if kind < 9:
        source = rng.choice(seeds.files)
        path = target / "model.gguf"
        path.write_bytes(change_gguf(source.read_bytes(), rng))
        return path
    if kind == 9:
        source = rng.choice(seeds.matrices)
        change = change_gguf if source.suffix == ".gguf" and rng.random() < 0.8 else change_bytes
        path = target / f"imatrix{source.suffix}"
        path.write_bytes(change(source.read_bytes(), rng))
        return path
    source, folder = rng.choice(seeds.folders), target / "model"
    folder.mkdir()
    for name in {*JSON, WEIGHTS, "chat_template.jinja"}:
        if (source / name).exists():
            (folder / name).symlink_to(source / name)
    for name in (
        {WEIGHTS} if kind < 13 else {rng.choice(JSON) for _ in range(rng.choice([1, 1, 2]))}
    ):
        if (source / name).exists():
            data = (source / name).read_bytes()
            (folder / name).unlink()
            change = change_safetensors if name == WEIGHTS else change_json
            (folder / name).write_bytes(change(data, rng))
    return folder


def keep(path: Path, target: Path) -> None:
    """Copy an input to `target`, with what its links name."""
    target.mkdir(parents=True, exist_ok=True)
    if path.is_dir():
        shutil.copytree(path, target / path.name, dirs_exist_ok=True)
    else:
        shutil.copy(path, target / path.name)
