"""Coverage-guided inputs for the readers: `python fuzz/python/readers.py gguf -max_total_time=60`.

Needs `pip install atheris`. The first word names the reader; libFuzzer's options follow.
"""

from __future__ import annotations

import sys
import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["fewbit"]):
    import fewbit
    from fewbit.files.gguf import read_gguf
    from fewbit.files.gguf_config import config_from_gguf
    from fewbit.files.hf_config import config_from_hf
    from fewbit.files.importance import read_imatrix
    from fewbit.files.json_file import read_json
    from fewbit.files.safetensors import read_safetensors
    from fewbit.models import build_plan
    from fewbit.tokenizer.gguf_vocabulary import build
    from fewbit.tokenizer.load import from_folder
    from fewbit.tokenizer.template_child import answer


def gguf(path: Path) -> None:
    """Header, configuration, plan and tokenizer of a GGUF file."""
    file = read_gguf(path)
    shapes = {name: info.shape for name, info in file.tensors.items()}
    build_plan(config_from_gguf(file.metadata, shapes, {}, path))
    build(file.metadata, path).encode("Hello, world")


def config(path: Path) -> None:
    """A config.json and its plan."""
    build_plan(config_from_hf(read_json(path), path))


def tokenizer(path: Path) -> None:
    """A tokenizer.json."""
    path.rename(path.with_name("tokenizer.json"))
    found = from_folder(path.parent)
    found.decode(found.encode("Hello, world"))


def template(path: Path) -> None:
    """A chat template, in this process: what it raises must come back as an answer."""
    text = path.read_text("utf-8", errors="replace")
    messages = [{"role": "user", "content": "Hi"}]
    answer({"template": text, "most": 10_000, "values": {"messages": messages, "tools": None}})


READERS: dict[str, Callable[[Path], object]] = {
    "config": config,
    "gguf": gguf,
    "imatrix": read_imatrix,
    "safetensors": read_safetensors,
    "template": template,
    "tokenizer": tokenizer,
}


def main() -> None:
    """Run the reader that the first word names."""
    read = READERS[sys.argv.pop(1)]
    warnings.simplefilter("ignore")

    def once(data: bytes) -> None:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "input"
            path.write_bytes(data)
            try:
                read(path)
            except (fewbit.FewbitError, OSError):
                return

    atheris.Setup(sys.argv, once)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
