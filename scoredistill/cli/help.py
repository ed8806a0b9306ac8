"""Help that can be read: short names, and of Lightning's trainer only what matters here."""

from __future__ import annotations

import re
from argparse import SUPPRESS, Action, ArgumentParser

from jsonargparse import DefaultHelpFormatter

TRAINER = {
    "accelerator": "cpu, gpu, mps or auto.",
    "devices": "how many devices, or which.",
    "precision": "32-true, bf16-mixed, 16-mixed, 64-true, ...",
    "max_steps": "generator steps.",
    "max_time": "stop after DD:HH:MM:SS.",
    "callbacks": "what looks at the run: ParticleGrid, Turntable, ModeStatistics, GalleryFidelity, ...",
    "logger": "CSVLogger, TensorBoardLogger, ...; a relative save_dir lies in the run folder; false: none.",
    "log_every_n_steps": "generator steps between lines of the log.",
    "val_check_interval": "ticks between validations.",
    "detect_anomaly": "find the operation that made a NaN.",
}
"""What is shown of the trainer; the rest works as well."""

EPILOG = """\
Every option can stand in a recipe, a YAML file: `--model.loss SDS` is `model: {loss: SDS}`. A class is given by its
name or dotted path, its settings as class_path and init_args in a recipe or as further options (--model.loss VSD
--model.loss.critic ParticleCritic), or the whole of it as a path to a YAML file. `--model.loss.help VSD` explains a
class. Options override recipes, later recipes earlier ones; `--trainer.X` takes every argument of Lightning's Trainer.
"""


class HelpFormatter(DefaultHelpFormatter):
    """Names classes without their modules, and lists those to choose from only where that is short."""

    def _expand_help(self, action: Action) -> str:
        text = super()._expand_help(action)
        if action.dest.startswith("trainer."):
            default = re.search(r"default: ([^,)]*)", text)
            text = (action.help or "") + (f" (default: {default[1]})" if default else "")
        text = text.replace("known subclasses: ", "one of: ")
        text = re.sub(r"<class '([\w.]+)'>", r"\1", text)
        return re.sub(r"\b(?:scoredistill|torch)(?:\.\w+)*\.([A-Z]\w+)", r"\1", text)


def tidy(parser: ArgumentParser) -> None:
    """Hide what users never need, and say in our words what the rest of the trainer does."""
    for action in parser._actions:
        name = action.dest.removeprefix("trainer.")
        is_class_help = any(option.endswith(".help") for option in action.option_strings)
        if action.dest in ("trainer", "model"):
            action.help = SUPPRESS
        elif action.dest == "config":
            action.help = "a recipe: a YAML file, or the name of one that `scoredistill recipes` lists."
        elif action.dest == "data":
            action.help = "what is asked of the generator: prompt and cameras, or nothing but samples"
        elif name != action.dest:
            action.help = SUPPRESS if is_class_help else TRAINER.get(name, SUPPRESS)
        elif is_class_help:
            action.help = SUPPRESS
    groups = {group.title: group for group in parser._action_groups}
    for title, group in groups.items():
        if title == "Customize every aspect of training via flags":
            group.title = "Lightning's trainer"
        elif "--data" in (option for action in group._group_actions for option in action.option_strings):
            group.title = "Says what to generate, batch by batch"
        elif title == "Linked arguments":
            parser._action_groups.remove(group)
