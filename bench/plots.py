"""Pictures of a run: the roofline, our speed against each rival, the climb of a ladder. Also of an old run's JSON."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import matplotlib
import matplotlib.ticker

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from .runner import OURS, Row

COLOURS = {  # of suites, then of rivals
    "matmul": "#1f77b4", "linear": "#17a2b8", "attention": "#d62728", "attention_backward": "#ff7f5e",
    "decode": "#8c564b",
    "norms": "#2ca02c", "softmax": "#98c93c", "cross_entropy": "#9467bd", "activations": "#e377c2",
    "embedding": "#7f7f7f", "adamw": "#bcbd22", "gpt_step": "#111111", "vae_step": "#666699",
    "numpy": "#4c78a8", "scipy": "#8fb3d9", "torch": "#e4572e", "torch.compile": "#f3a683", "torch.bf16": "#a83279",
    "jax": "#54a24b",
}  # fmt: skip
MARKERS = "osD^vP*Xph<>d"


def draw(result: dict[str, Any], folder: Path) -> list[Path]:
    """PNG files in the folder; only what the rows have something for."""
    folder.mkdir(parents=True, exist_ok=True)
    rows = [row for row in result["rows"] if row["median_s"]]
    figures = {"roofline": _roofline(rows, result["machine"])}
    for suite in dict.fromkeys(row["suite"] for row in rows):
        if suite == "ladder":
            ladders: dict[str, list[Row]] = {}
            for row in rows:
                if row["suite"] == suite:
                    ladders.setdefault(row["case"].rpartition(", ")[0], []).append(row)
            for name, mine in ladders.items():
                words = [word for word in name.split() if word.isalpha()]
                figures["_".join(["ladder", *words])] = _ladder(name, mine)
        elif suite == "limits":
            figures["bandwidth"] = _bandwidth([row for row in rows if row["suite"] == suite])
        else:
            figures[f"ratios_{suite}"] = _ratios(suite, [row for row in rows if row["suite"] == suite])
    paths = []
    for name, figure in figures.items():
        if figure is not None:
            paths.append(folder / f"{name}.png")
            figure.savefig(paths[-1], dpi=130)
            plt.close(figure)
    return paths


def _clean(axes: Axes, grid: str = "both") -> None:
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(True, axis=grid, which="major", color="#e6e6e6", linewidth=0.8)  # type: ignore[arg-type]
    axes.set_axisbelow(True)


def _roofline(rows: list[Row], machine: dict[str, Any]) -> Figure | None:
    """FLOP/s over FLOPs per byte that must move; the roof is peak and bandwidth, the memory's and the caches'."""
    threads = machine["threads"]
    limits = machine["limits"][str(threads)]
    points = [r for r in rows if r["implementation"] in (OURS, f"{OURS}.bf16") and r["flops"] and r["bytes"]
              and r["threads"] == threads and r["suite"] not in ("limits", "ladder", "engine")]  # fmt: skip
    if not points:
        return None
    figure, axes = plt.subplots(figsize=(11, 6.5), layout="constrained")
    intensity = [r["flops"] / r["bytes"] for r in points]
    low, high = min(*intensity, 0.25) / 4, max(*intensity, 64) * 2
    x = np.geomspace(low, high, 400)
    peak, bandwidth = limits["peak"], limits["bandwidth"]["copy"]
    for name, rate, style in (("memory", bandwidth[-1], "-"), ("L1", bandwidth[0], ":")):
        roof = np.minimum(x * rate, peak)
        axes.plot(x, roof / 1e9, style, color="#333333", linewidth=1.6 if style == "-" else 1.0)
        axes.annotate(f"{name}: {rate / 1e9:.0f} GB/s", (x[0] * 1.3, x[0] * 1.3 * rate / 1e9), xytext=(6, -1),
                      textcoords="offset points", va="top", fontsize=9, color="#333333")  # fmt: skip
    axes.annotate(f"float32 peak {peak / 1e9:.0f} GFLOP/s", (x[-1], peak / 1e9), xytext=(-2, 4),
                  textcoords="offset points", ha="right", fontsize=9, color="#333333")  # fmt: skip
    if limits["peak_bf16"] and any(r["implementation"].endswith("bf16") for r in points):
        axes.axhline(limits["peak_bf16"] / 1e9, color="#333333", linewidth=1.0, linestyle="--")
        axes.annotate(f"bfloat16 peak {limits['peak_bf16'] / 1e9:.0f} GFLOP/s", (x[-1], limits["peak_bf16"] / 1e9),
                      xytext=(-2, 4), textcoords="offset points", ha="right", fontsize=9, color="#333333")  # fmt: skip
    for i, suite in enumerate(dict.fromkeys(r["suite"] for r in points)):
        for bf16 in (False, True):
            mine = [r for r in points if r["suite"] == suite and r["implementation"].endswith("bf16") == bf16]
            if mine:
                marker, colour = MARKERS[i % len(MARKERS)], COLOURS.get(suite, "#555555")
                axes.scatter(
                    [r["flops"] / r["bytes"] for r in mine], [r["flops"] / r["median_s"] / 1e9 for r in mine],
                    s=90 if marker == "*" else 42, marker=marker, color="white" if bf16 else colour,
                    edgecolor=colour if bf16 else "white", linewidth=1.5 if bf16 else 0.6,
                    zorder=3, label=f"{suite} bf16" if bf16 else suite,
                )  # fmt: skip
    axes.set(xscale="log", yscale="log", xlim=(low, high), xlabel="FLOPs per byte that must move", ylabel="GFLOP/s")
    axes.set_title(f"Roofline: every kernel, {threads} threads\n{machine['cpu']}", loc="left", fontsize=11)
    axes.legend(loc="center left", bbox_to_anchor=(1.01, 0.5), frameon=False, fontsize=9)
    _clean(axes)
    return figure


def _ratios(suite: str, rows: list[Row]) -> Figure | None:
    """For each case and rival a bar: how many times as long as ours it takes."""
    ours = [r for r in rows if r["implementation"] == OURS and r["ratios"]]
    rivals = [n for n in dict.fromkeys(r["implementation"] for r in rows) if n != OURS]
    if not ours or not rivals:
        return None
    high = max(ratio for r in ours for ratio in r["ratios"].values())
    low = min(ratio for r in ours for ratio in r["ratios"].values())
    bars = sum(len(r["ratios"]) for r in ours)
    figure, axes = plt.subplots(figsize=(10, 1.4 + 0.2 * bars + 0.25 * len(ours)), layout="constrained")
    at, ticks, named = 0.0, [], set()
    for row in ours:
        there = [n for n in rivals if n in row["ratios"]]
        ticks.append(at + (len(there) - 1) / 2)
        for rival in there:
            ratio = row["ratios"][rival]
            axes.barh(at, ratio - 1, left=1, height=0.88, color=_colour(rival), label="_" * (rival in named) + rival)
            axes.annotate(f"{ratio:.2f}" if ratio < 10 else f"{ratio:.0f}", (ratio, at),
                          xytext=(3 if ratio >= 1 else -3, 0), textcoords="offset points", va="center",
                          ha="left" if ratio >= 1 else "right", fontsize=7.5, color="#333333")  # fmt: skip
            named.add(rival)
            at += 1
        at += 1.2
    axes.axvline(1, color="#333333", linewidth=1)
    axes.set(xscale="log", xlim=(min(low / 1.4, 0.7), max(high * 1.4, 2.5)), ylim=(at - 1.2, -1), yticks=ticks)
    axes.set_yticklabels([f"{r['case']}\n{_share(r)}" for r in ours], fontsize=8.5)
    axes.xaxis.set_major_locator(matplotlib.ticker.LogLocator(subs=(1, 2, 5)))
    axes.xaxis.set_major_formatter(matplotlib.ticker.FormatStrFormatter("%g"))
    axes.xaxis.set_minor_formatter(matplotlib.ticker.NullFormatter())
    axes.set_xlabel("time, as a multiple of minillm's float32 (right of 1: slower than minillm)")
    axes.set_title(f"{suite}{', cold caches' if ours[0]['cold'] else ''}", loc="left", fontsize=11)
    figure.legend(loc="outside upper right", ncols=len(rivals), frameon=False, fontsize=8.5)
    _clean(axes, "x")
    return figure


def _colour(name: str) -> str:
    return COLOURS.get(name, "#c4c4c4" if name.startswith(OURS) else "#444444")


def _share(row: Row) -> str:
    from .report import duration

    limit = f", {row['share_of_limit']:.0%} of the limit" if row["share_of_limit"] else ""
    threads = "one thread" if row["threads"] == 1 else f"{row['threads']} threads"
    return f"{duration(row['median_s'])}{limit}, {threads}"


def _ladder(name: str, rows: list[Row]) -> Figure | None:
    """A bar a rung; lines where the rivals are, on one thread."""
    rungs = [r for r in rows if r["label"]]
    if not rungs:
        return None
    figure, axes = plt.subplots(figsize=(11, 1.6 + 0.55 * len(rungs)), layout="constrained")
    shares = [100 * r["share_of_limit"] for r in rungs]
    colours = [plt.get_cmap("viridis")(0.15 + 0.7 * i / max(1, len(rungs) - 1)) for i in range(len(rungs))]
    axes.barh(range(len(rungs)), shares, color=colours, height=0.7)
    for y, (row, s) in enumerate(zip(rungs, shares)):
        rate = row["flops"] / row["median_s"] / 1e9
        axes.annotate(f"{s:.3g} %   {rate:.3g} GFLOP/s   {rungs[0]['median_s'] / row['median_s']:.3g}x", (s, y),
                      xytext=(4, 0), textcoords="offset points", va="center", fontsize=8.5,
                      bbox={"facecolor": "white", "edgecolor": "none", "pad": 0.5})  # fmt: skip
    one = rungs[0]["case"]
    for row in rows:
        if row["case"] == one and not row["label"] and row["share_of_limit"]:
            s = 100 * row["share_of_limit"]
            rival = row["implementation"]
            axes.axvline(s, color=_colour(rival), linewidth=1.2, linestyle="--", zorder=0.5,
                         label=f"{rival}, one thread: {s:.0f} %")  # fmt: skip
    names = [f"{r['implementation'].split('_')[0]}: {r['label']}" for r in rungs]
    several = [f" ({r['threads']} threads)" if r["case"] != one else "" for r in rungs]
    axes.set(yticks=range(len(rungs)), xlim=(0, 150), xlabel="% of the float32 FMA peak of the threads used")
    axes.set_yticklabels([n + s for n, s in zip(names, several)], fontsize=9)
    axes.set_xticks(range(0, 101, 20))
    axes.invert_yaxis()
    axes.set_title(f"Ladder: {name}, one thread", loc="left", fontsize=11)
    if axes.get_legend_handles_labels()[0]:
        axes.legend(loc="upper right", frameon=False, fontsize=8.5)
    _clean(axes, "x")
    return figure


def _bandwidth(rows: list[Row]) -> Figure | None:
    """The three streams over the working set, one picture for each number of threads."""
    rows = [r for r in rows if r["bytes"]]
    counts = sorted({r["threads"] for r in rows})
    if not counts:
        return None
    figure, all_axes = plt.subplots(
        1, len(counts), figsize=(5.5 * len(counts), 4.2), layout="constrained", squeeze=False
    )
    for axes, threads in zip(all_axes[0], counts):
        for stream, marker in zip(("copy", "read", "triad"), "os^"):
            mine = [r for r in rows if r["threads"] == threads and r["case"].startswith(stream)]
            sizes = [int(r["case"].split()[1]) for r in mine]
            axes.plot(sizes, [r["bytes"] / r["median_s"] / 1e9 for r in mine], marker=marker, label=stream)
        axes.set(xscale="log", yscale="log", xlabel="working set of all threads", ylabel="GB/s, read + written")
        ticks = [16, 128, 1024, 8192, 65536, 262144]
        axes.set_xticks(ticks, ["16 KB", "128 KB", "1 MB", "8 MB", "64 MB", "256 MB"], fontsize=8.5)
        axes.minorticks_off()
        axes.yaxis.set_major_locator(matplotlib.ticker.LogLocator(subs=(1, 2, 5)))
        axes.yaxis.set_major_formatter(matplotlib.ticker.FormatStrFormatter("%g"))
        axes.set_title(f"{threads} thread{'s' * (threads > 1)}", loc="left", fontsize=11)
        axes.legend(frameon=False)
        _clean(axes)
    return figure
