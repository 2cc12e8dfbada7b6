"""Put a trained run into the package as a shipped model.

    python scripts/ship_model.py RUN CELLS src/hemascope/shipped/NAME --source TEXT --licence TEXT [--views dihedral]
        [--words WBCATT_FOLDER]

Half precision, checked on all CELLS (a changed label stops it), without the paths of the machine it was made on. What
the model learnt from and its split come along, so that a later evaluation on the same cells notices, and a stress test
can use the very test part. Calibration is fitted anew, with the views the model is shipped with and in the precision it
is shipped in; --words adds the head that describes white cells, from WBCAtt's tables. The card is written afterwards by scripts/model_card.py.
"""

from __future__ import annotations

import argparse
import json
import shutil
from pathlib import Path

from hemascope.console import make_progress
from hemascope.models.bundle import load_bundle
from hemascope.models.packing import write_packed
from hemascope.workflow.calibrating import calibrate
from hemascope.workflow.model_making import pack

PACKED_ONLY = ("packed", "licence", "illuminant")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("cells", type=Path)
    parser.add_argument("output", type=Path)
    parser.add_argument("--source", required=True, help="what the cells are, in place of their path")
    parser.add_argument("--licence", required=True)
    parser.add_argument("--views", nargs="*", default=[])
    parser.add_argument("--command", required=True, help="how the run was made, without this machine's paths")
    parser.add_argument("--words", type=Path, help="folder of WBCAtt's tables")
    options = parser.parse_args()
    trial = options.output.with_name(f"{options.output.name}.trial")
    made = pack(options.run, trial, check=options.cells, light=options.cells, licence=options.licence)
    checked = load_bundle(trial)
    own = {name: checked.provenance[name] for name in PACKED_ONLY if name in checked.provenance}
    shutil.rmtree(trial)
    write_packed(
        options.output,
        load_bundle(options.run),
        half=True,
        provenance={**own, "data_source": options.source, "command": options.command},
        views=tuple(options.views),
    )
    shutil.copy(options.run / "learnt_from.npy", options.output)
    splits = json.loads((options.run / "splits.json").read_text(encoding="utf-8"))
    (options.output / "splits.json").write_text(json.dumps(splits, separators=(",", ":")), encoding="utf-8")
    fitted = calibrate(options.output, options.cells, words=options.words, progress=make_progress(quiet=False))
    print(f"calibrated on {fitted.record.fitted_on:,} cells, {fitted.bytes / 1e6:.1f} MB of arrays")
    print(
        f"{made.checked:,} cells: no label changed, largest difference of a probability {made.largest_difference:.4f}"
    )


if __name__ == "__main__":
    main()
