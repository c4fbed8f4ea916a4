"""The settings of a plan, explained."""

from collections.abc import Iterator
from dataclasses import fields
from typing import TYPE_CHECKING

from charrnn.cli.options import flag
from charrnn.config.overrides import Overrides
from charrnn.config.settings import declaration, get_setting

if TYPE_CHECKING:
    from charrnn.training.plan import Plan


def explain(plan: "Plan", overrides: Overrides) -> Iterator[str]:
    """Yield a line for each setting of a plan: option, value, origin and meaning.

    The origin is "given" for a setting that the user chose, "planned" for one that follows from the text and the
    machine, and "default" otherwise.
    """
    chosen = dict(overrides.chosen())
    rows = []
    for config in (plan.model_config, plan.train_config):
        for field in fields(config):
            setting, value = get_setting(field), getattr(config, field.name)
            if setting is None or setting.option is None or value is None:
                continue
            has_fixed_default = "{default}" in (setting.option.default_text or "{default}")
            is_default = has_fixed_default and value == declaration(field).default
            origin = "given" if field.name in chosen else "default" if is_default else "planned"
            shown = f"{value:g}" if isinstance(value, float) else str(value)
            rows.append((flag(field.name), shown, origin, setting.option.help))
    widths = [max(len(row[column]) for row in rows) for column in range(3)]
    for name, value, origin, help in rows:
        yield f"  {name:<{widths[0]}}  {value:<{widths[1]}}  {origin:<{widths[2]}}  {help}"
