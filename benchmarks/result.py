"""What a benchmark gives: figures, and the budgets they are held to."""

import json
import os
import platform
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil


@dataclass
class Result:
    """figures: name -> number.  limits: name -> ('most' or 'least', limit).  picture: a PNG."""

    settings: dict[str, Any]
    figures: dict[str, float] = field(default_factory=dict)
    limits: dict[str, tuple[str, float]] = field(default_factory=dict)
    picture: bytes | None = None

    def met(self, name: str) -> bool:
        kind, limit = self.limits[name]
        figure = self.figures[name]
        return figure <= limit if kind == "most" else figure >= limit

    @property
    def all_met(self) -> bool:
        return all(self.met(name) for name in self.limits)

    def show(self) -> None:
        for name, figure in self.figures.items():
            budget = ""
            if name in self.limits:
                kind, limit = self.limits[name]
                budget = f"  at {kind} {limit:g}: {'met' if self.met(name) else 'MISSED'}"
            print(f"{name:<64} {figure:14,.4f}{budget}")

    def write(self, path: Path) -> None:
        content = {
            "machine": {
                "cores": os.cpu_count(),
                "memory_gib": round(psutil.virtual_memory().total / 2**30, 1),
                "python": platform.python_version(),
                "system": platform.platform(),
            },
            "settings": self.settings,
            "figures": self.figures,
            "budgets": {
                name: {"figure": self.figures[name], "limit": limit, "met": self.met(name)}
                for name, (_, limit) in self.limits.items()
            },
        }
        path.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
        if self.picture is not None:
            path.with_suffix(".png").write_bytes(self.picture)
