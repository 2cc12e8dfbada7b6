"""What a competent user would write without hemascope: image files to a CSV with a plain timm and torch script.

It is the other side of ``against_plain_prediction.py``: a Dataset over the files of a folder, torchvision's
transforms, a DataLoader with two workers and batches of 64, the eager network in fp32, softmax, and a row for each
image by the csv module. It loads the weights of a hemascope bundle, so both run the same network on the same pixels;
of hemascope it imports only the shim that lets torchvision load beside a CPU build of torch.

    python benchmarks/plain_prediction.py RUN/bundle FOLDER out.csv

On stdout, one line of JSON: images, seconds in all (from the script's first line), and seconds of work (from when
everything was imported and the network was built, to the closed CSV; starting the workers is part of it).
"""

import time

STARTED = time.perf_counter()  # before torch is imported: that is part of what a user waits for

import argparse  # noqa: E402
import csv  # noqa: E402
import json  # noqa: E402
from pathlib import Path  # noqa: E402

import torch  # noqa: E402
from PIL import Image  # noqa: E402
from safetensors.torch import load_file  # noqa: E402
from torch import nn  # noqa: E402
from torch.utils.data import DataLoader, Dataset  # noqa: E402

from hemascope.torchvision_compat import import_torchvision  # noqa: E402

import_torchvision()

import timm  # noqa: E402
from torchvision import transforms  # noqa: E402

IMAGE_SUFFIXES = {".jpg", ".jpeg", ".png", ".tif", ".tiff", ".bmp", ".webp"}


class Files(Dataset):
    """Image files as normalised tensors, with their paths."""

    def __init__(self, paths: list[Path], transform: transforms.Compose) -> None:
        self.paths, self.transform = paths, transform

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, str]:
        with Image.open(self.paths[index]) as image:
            return self.transform(image.convert("RGB")), str(self.paths[index])


def load_network(bundle: Path, record: dict) -> tuple[nn.Module, list[float], list[float]]:
    """The bundle's network as plain timm, with the mean and deviation its inputs need."""
    tensors = load_file(bundle / "model.safetensors")
    backbone, head = "backbone.net.", "head."
    layers = {name.removeprefix(head): value for name, value in tensors.items() if name.startswith(head)}
    if record["model"]["head"]["kind"] != "linear":
        raise SystemExit("this script knows a linear head only")
    model = timm.create_model(record["model"]["backbone"], num_classes=len(record["class_names"]))
    classifier = model.pretrained_cfg["classifier"]
    state = {name.removeprefix(backbone): value for name, value in tensors.items() if name.startswith(backbone)}
    state |= {f"{classifier}.{name.split('.')[-1]}": value for name, value in layers.items()}
    model.load_state_dict(state)
    return model.eval(), (tensors["mean"].flatten() / 255).tolist(), (tensors["std"].flatten() / 255).tolist()


def preparation_steps(preparation: dict) -> list:
    """torchvision's words for the bundle's preparation; on PIL images both use Pillow's own filters."""
    steps = [transforms.CenterCrop(preparation["crop"])] if preparation["crop"] else []
    for step in preparation["resizes"]:
        mode = transforms.InterpolationMode(step["filter"])
        steps.append(transforms.Resize((step["size"], step["size"]), interpolation=mode))
    return steps


def main() -> None:
    parser = argparse.ArgumentParser(description="Plain timm and torch prediction of all images below FOLDER.")
    parser.add_argument("bundle", type=Path)
    parser.add_argument("folder", type=Path)
    parser.add_argument("output", type=Path)
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--workers", type=int, default=2)
    arguments = parser.parse_args()

    record = json.loads((arguments.bundle / "bundle.json").read_text(encoding="utf-8"))
    names = record["class_names"]
    device = "cuda" if torch.cuda.is_available() else "cpu"
    model, mean, std = load_network(arguments.bundle, record)
    model.to(device)
    ready = time.perf_counter()

    paths = sorted(path for path in arguments.folder.rglob("*") if path.suffix.lower() in IMAGE_SUFFIXES)
    to_input = [transforms.ToTensor(), transforms.Normalize(mean, std)]
    dataset = Files(paths, transforms.Compose([*preparation_steps(record["preparation"]), *to_input]))
    loader = DataLoader(dataset, batch_size=arguments.batch_size, num_workers=arguments.workers)
    with arguments.output.open("w", encoding="utf-8", newline="") as file, torch.inference_mode():
        writer = csv.writer(file)
        writer.writerow(["path", "label", "probability", *(f"p_{name}" for name in names)])
        for images, files in loader:
            probabilities = model(images.to(device)).softmax(dim=1).cpu()
            best = probabilities.argmax(dim=1).tolist()
            for path, k, row in zip(files, best, probabilities.tolist(), strict=True):
                writer.writerow([path, names[k], f"{row[k]:.6g}", *(f"{value:.6g}" for value in row)])
    done = time.perf_counter()
    print(json.dumps({"images": len(paths), "seconds": done - STARTED, "work_seconds": done - ready}), flush=True)


if __name__ == "__main__":
    main()
