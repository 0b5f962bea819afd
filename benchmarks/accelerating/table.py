"""The results, as a table and as a JSON file."""

import json
from pathlib import Path
from typing import Any

# Memory bandwidth in bytes/s, by prefix of JAX's device name; NVIDIA's data sheets "H100
# Tensor Core GPU" (SXM 3.35 TB/s, PCIe 2, NVL 3.9 each), "H200 Tensor Core GPU" (4.8) and "A100
# Tensor Core GPU" (40 GB 1,555 GB/s, 80 GB SXM 2,039).
BANDWIDTHS = {
    "NVIDIA H100 PCIe": 2.0e12,
    "NVIDIA H100 NVL": 3.9e12,
    "NVIDIA H100": 3.35e12,
    "NVIDIA H200": 4.8e12,
    "NVIDIA A100-SXM4-80GB": 2.039e12,
    "NVIDIA A100-SXM4-40GB": 1.555e12,
}

HEADER = (
    f"{'':44}{'first':>8}{'warm':>7}{'ms':>10}{'least-most':>19}{'per second':>12}{'MFU':>7}"
    f"{'causal':>8}{'memory/s':>9}{'GiB':>7}{'speed':>8}"
)


def bandwidth_of(kind: str) -> float | None:
    """Bytes/s of a device's memory; None if unknown."""
    return next((rate for name, rate in BANDWIDTHS.items() if kind.startswith(name)), None)


class Results:
    """The reports of workers, by line of the table; written to a file after each report.

    Attributes:
        device: see `ours.device`.
        lines: by title: `row`, and by part (`ours`, `warm`, `peer`) its facts: `first` and
            `all_shapes` (seconds to the first step, and until every shape has run once; reading
            text is left out), `ms` a step with `low` and `high`, `items` and `flops` of a step,
            `flops_causal` without pairs that a causal mask hides, `bytes` that a step must read,
            `peak_bytes_in_use`, the `cpu_seconds` of a part on the last line that it spoke of, and
            `failed` and `log` where something went wrong.
        seconds: the total duration, once known.
    """

    def __init__(self, path: Path | None, **facts: Any) -> None:
        """Starts without results.

        Args:
            path: the JSON file; None writes none.
            **facts: facts about the whole run, stored as well.
        """
        self.device: dict[str, Any] = {}
        self.lines: dict[str, dict[str, Any]] = {}
        self.seconds: float | None = None
        self._path, self._facts = path, facts

    def add(self, title: str, row: str, part: str, facts: dict[str, Any]) -> None:
        """Adds facts to a line."""
        line = self.lines.setdefault(title, {"row": row})
        line.setdefault(part, {}).update(facts)
        self._derive(line)
        self.write()

    def of_row(self, row: str) -> dict[str, dict[str, Any]]:
        """The lines of a row, by title."""
        return {title: line for title, line in self.lines.items() if line["row"] == row}

    def write(self) -> None:
        """Replaces the file atomically, so that it can be read at any time."""
        if self._path is None:
            return
        known = {**self._facts, "device": self.device, "seconds": self.seconds}
        part = self._path.with_name(self._path.name + ".part")
        part.write_text(json.dumps({**known, "lines": self.lines}, indent=1) + "\n", "utf-8")
        part.replace(self._path)

    def _derive(self, line: dict[str, Any]) -> None:
        """Computes speeds, and fractions of the device's peaks."""
        ours, peer = line.get("ours", {}), line.get("peer", {})
        peak = self.device.get("peak_flops")
        bandwidth = bandwidth_of(self.device.get("kind", ""))
        for side in (ours, peer):
            if "ms" not in side or "items" not in side:
                continue
            seconds = side["ms"] / 1e3
            side["per_second"] = side["items"] / seconds
            # The model is the same, so the peer uses our FLOPs and bytes per item.
            done = side["per_second"] / ours["items"] if "items" in ours else None
            if done and peak and "flops" in ours:
                side["mfu"] = ours["flops"] * done / peak
                side["mfu_causal"] = ours["flops_causal"] * done / peak
            if done and bandwidth and "bytes" in ours:
                side["bandwidth_share"] = ours["bytes"] * done / bandwidth
        if "per_second" in ours and "per_second" in peer:
            line["ratio"] = ours["per_second"] / peer["per_second"]

    def shown(self, title: str) -> str:
        """A line of the table, followed by the peer's line and by failures."""
        line = self.lines[title]
        texts = []
        for part in ("ours", "peer"):
            facts = line.get(part, {})
            name = title if part == "ours" else f"  {facts.get('name', 'peer')}"
            if set(facts) - {"failed", "log", "name", "cpu_seconds"}:
                warm = line.get("warm", {}).get("first") if part == "ours" else None
                ratio = line.get("ratio") if part == "ours" else None
                texts.append(_columns(name, facts, warm, ratio))
            elif part == "ours":
                texts.append(name)
        for part in ("ours", "warm", "peer"):
            reason = line.get(part, {}).get("failed")
            if reason:
                texts.append(f"  {part} failed: {reason}")
        return "\n".join(texts)

    def table(self) -> str:
        """The whole table."""
        device = self.device
        versions = ", ".join(f"{k} {v}" for k, v in device.get("versions", {}).items())
        about = f"{device.get('kind', '?')}, Python {device.get('python', '?')}, {versions}"
        return "\n".join([about, HEADER, *(self.shown(title) for title in self.lines)])


def _columns(name: str, facts: dict[str, Any], warm: float | None, ratio: float | None) -> str:
    def number(value: float | None, form: str, width: int, suffix: str = "") -> str:
        return f"{'' if value is None else format(value, form) + suffix:>{width}}"

    get = facts.get
    spread = f"{get('low'):,.2f}-{get('high'):,.2f}" if "low" in facts else ""
    memory = get("peak_bytes_in_use")
    return (
        f"{name[:44]:44}{number(get('first'), '.1f', 8)}{number(warm, '.1f', 7)}"
        f"{number(get('ms'), ',.2f', 10)}{spread:>19}{number(get('per_second'), ',.0f', 12)}"
        f"{number(get('mfu'), '.1%', 7)}{number(get('mfu_causal'), '.1%', 8)}"
        f"{number(get('bandwidth_share'), '.1%', 9)}"
        f"{number(memory and memory / 2**30, '.1f', 7)}{number(ratio, '.2f', 7, 'x')}"
    ).rstrip()
