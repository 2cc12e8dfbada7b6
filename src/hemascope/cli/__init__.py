"""The command line: each verb parses its words, makes one library call and prints. Nothing heavy is imported here.

``hemascope --help`` must answer at once, so a verb imports what it needs when it runs.
"""

from __future__ import annotations

import os

import click

from hemascope import __version__
from hemascope.cli.audit_verbs import audit, draw_map
from hemascope.cli.augment_verbs import augment
from hemascope.cli.clean_verb import clean
from hemascope.cli.config_verb import config
from hemascope.cli.data_verbs import inspect
from hemascope.cli.estimate_verb import estimate
from hemascope.cli.explain_verb import explain
from hemascope.cli.manners import HELP_SETTINGS, HemascopeGroup
from hemascope.cli.model_verbs import models, pack, soup
from hemascope.cli.predict_verb import predict
from hemascope.cli.result_verbs import compare, evaluate, report
from hemascope.cli.shift_verb import shift
from hemascope.cli.similar_verb import similar
from hemascope.cli.stress_verb import stress
from hemascope.cli.study_verbs import study
from hemascope.cli.train_verbs import demo, train
from hemascope.cli.trust_verbs import calibrate, trust


@click.group(cls=HemascopeGroup, context_settings=HELP_SETTINGS)
@click.version_option(__version__, message="hemascope %(version)s")
@click.option("--quiet", is_flag=True, help="Show results and warnings only.")
def main(quiet: bool) -> None:
    """From a pile of single blood-cell images to a classifier you can check.

    \b
    First steps:
      hemascope demo                                  try it without any images
      hemascope audit my_cells/ -o audits/first       what does not belong there?
      hemascope train my_cells/ -o runs/first         train, evaluate, report
      hemascope predict runs/first new/ -o out.csv    name new cells
      hemascope predict blood8 cell.png               name a cell with the model that comes along
    """
    # OpenMP threads that wait for each other spin by default. Where another program wants a core too, training then
    # crawls: 7 instead of 28 images a second beside one busy process here, the same 80 on an idle machine.
    # Read when torch loads, so it has to be set before; a value of the user's own stands.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")


for _verb in (inspect, audit, clean, draw_map, augment, train, evaluate, stress, calibrate, trust, predict):
    main.add_command(_verb)
for _verb in (shift, similar, explain, compare, study, soup, pack, models, report, estimate, config, demo):
    main.add_command(_verb)

__all__ = ["main"]
