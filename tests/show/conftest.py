from __future__ import annotations

from typing import Any

import pytest


@pytest.fixture
def results() -> dict[str, Any]:
    """A full set of results, as `longspan.show.report` describes it."""
    text = "def main(é):\n".encode()
    return {
        "title": "longspan demo",
        "longspan": "0.1.0",
        "created": "2026-01-31 12:00 UTC",
        "run": {
            "parameters": 6_312_448,
            "steps": 500,
            "tokens_seen": 2_048_000,
            "tokens_per_second": 8312.4,
            "train_seconds": 246.0,
            "total_seconds": 281.0,
            "peak_memory_bytes": 1_934_000_000,
            "segment": 128,
            "memory": 256,
            "dtype": "bfloat16",
            "threads": 2,
            "hardware": "a processor, 2 cores",
            "versions": {"torch": "2.13.0", "longspan": "0.1.0"},
            "recipe": "model:\n  layers: 6\n",
        },
        "data": {
            "path": "stdlib:",
            "train_bytes": 10_240_000,
            "train_files": 612,
            "test_bytes": 1_020_000,
            "test_files": 58,
            "scored_bytes": 400_000,
        },
        "rows": [
            row("no memory", "none", 0, 2.1434, None, command="longspan measure --memory 0"),
            row("memory 256", "memory", 256, 2.0126, -0.061, command="longspan measure"),
            row("sliding window", "sliding", 256, 2.0311, -0.0524, speed=311.0),
            row("xz -9, per file", "archive", None, 2.1871, None, speed=None),
            row("xz -9, one archive", "archive", None, 4.0102, None, speed=None),
        ],
        "curve": [
            {"memory": 0, "bits_per_byte": 2.1434, "low": 2.12, "high": 2.17},
            {"memory": 128, "bits_per_byte": 2.06, "low": 2.04, "high": 2.08},
            {"memory": 256, "bits_per_byte": 2.0126, "low": 1.99, "high": 2.03},
            {"memory": 1024, "bits_per_byte": 2.05, "low": 2.03, "high": 2.07},
        ],
        "training": [
            {"step": s, "tokens": 4096 * s, "bits_per_byte": 1.9 + 6 / s} for s in range(1, 60)
        ],
        "validation": [
            {"step": s, "tokens": 4096 * s, "bits_per_byte": 2.0 + 6 / s} for s in (20, 40, 59)
        ],
        "sample": {
            "prompt": "def main(",
            "seed": 1,
            "settings": "top-p 0.9",
            "tokens": [
                {"bytes": f"{byte:02x}", "bits": i / 3, "prompt": i < 9}
                for i, byte in enumerate(text)
            ],
        },
    }


def row(
    name: str,
    kind: str,
    memory: int | None,
    bits: float,
    against: float | None,
    *,
    speed: float | None = 33_120.0,
    command: str | None = None,
) -> dict[str, Any]:
    return {
        "name": name,
        "kind": kind,
        "memory": memory,
        "bits_per_byte": bits,
        "against_none": against,
        "tokens_per_second": speed,
        "note": "",
        "command": command,
    }
