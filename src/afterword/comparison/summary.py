"""Rows → compare.json: the points of every arm, their intervals, hypervolumes and picks. Reads files only.

Learning of a cell is the unweighted mean over the learning skills of one metric after adaptation, retention the
same over the retention skills, of the suite and of benchmark tasks; scores that count are those of the tasks
`SPLIT/PART/SKILL`. The one rule: what is chosen is chosen on dev, what is shown is test.
"""

import json
import math
from collections.abc import Collection, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

from afterword.comparison.frontier import (
    Candidate,
    Point,
    dominated,
    hypervolume,
    hypervolume_by_seed,
    kept,
    mean_of_independent,
    pick,
    t_interval,
)
from afterword.comparison.with_retrieval import retrieval_summary
from afterword.errors import CheckpointError, ConfigError
from afterword.storage.parsing import parse_json
from afterword.types import Estimate

Row = Mapping[str, Any]
PARTS = ("learning", "retention")


def read_rows(output: Path) -> list[dict[str, Any]]:
    """Every whole row of rows.jsonl, oldest first; half a row at its end is not one."""
    path = output / "rows.jsonl"
    if not path.exists():
        return []
    # A grid asks before every cell, and other processes write to the file.
    return list(_parsed_rows(path, path.stat().st_mtime_ns, path.stat().st_size))


@lru_cache(maxsize=1)
def _parsed_rows(path: Path, modified_ns: int, size: int) -> tuple[dict[str, Any], ...]:
    rows = []
    for number, line in enumerate(path.read_text(encoding="utf-8").split("\n")[:-1], start=1):
        try:
            row = parse_json(line)
            rows.append({"fingerprint": row["fingerprint"], **row})
        except (ValueError, KeyError, TypeError) as error:
            problem = f"{path}: line {number} is no row of a comparison"
            raise CheckpointError(f"{problem}. Delete the line; its cell runs again.") from error
    return tuple(rows)


def summarise(output: Path) -> dict[str, Any]:
    """What grid.json and rows.jsonl come to, written to compare.json and returned."""
    from afterword.storage.atomic import replace_file

    asked = _asked(output)
    every = read_rows(output)
    summary = summary_of(asked, every)
    replace_file(output / "compare.json", json.dumps(summary, indent=1, ensure_ascii=False))
    return summary


def _asked(output: Path) -> dict[str, Any]:
    try:
        return dict(parse_json((output / "grid.json").read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError) as error:
        problem = f"output_dir: {str(output)!r} holds no comparison (grid.json is missing or broken)"
        raise CheckpointError(f"{problem}. Run `afterword compare` first, or give the folder that it wrote.") from error


def summary_of(asked: Mapping[str, Any], every: Sequence[Row]) -> dict[str, Any]:
    """The content of compare.json: numbers and reasons, nothing that is only layout."""
    settings, latest = asked["settings"], {row["fingerprint"]: row for row in every}
    metrics = {part: settings[f"{part}_metric"] for part in PARTS}
    cells = [_cell(cell, latest.get(cell["fingerprint"]), metrics) for cell in asked["cells"]]
    done = [cell for cell in cells if cell["status"] == "complete"]
    splits = sorted({split for cell in done for split in cell["splits"]})
    if done and not splits:
        raise nothing_measured(metrics, [latest[cell["fingerprint"]] for cell in done])
    split = "test" if "test" in splits else splits[0] if splits else None
    shown = [cell for cell in done if split in cell["splits"]]
    base = {s: _base([cell["splits"][s] for cell in done if s in cell["splits"]]) for s in splits}
    looks = {**settings, "outside_pick": asked.get("outside_pick", ())}
    arms = [_arm(name, own, cells, split, looks) for name, own in asked["arms"].items()]
    _mark_dominated(arms, base.get(split or ""))
    reference = tuple(settings["reference_point"])
    alone = hypervolume([tuple(base[split][part]["value"] for part in PARTS)], reference) if split else None  # pyright: ignore
    pairs = [(cell, latest[cell["fingerprint"]]) for cell in done]
    retrieval = retrieval_summary(pairs, split, metrics)
    environments = [latest[cell["fingerprint"]]["environment"] for cell in done]
    return {
        "format": 1,
        "created": max((environment.get("created", "") for environment in environments), default=None),
        "command": asked["command"],
        "settings": settings,
        "split": split,
        "splits": splits,
        "base": base,
        "base_hypervolume": alone,
        "arms": arms,
        "cells": [{name: value for name, value in cell.items() if name != "splits"} for cell in cells],
        "finished": len(shown),
        # Only where something was retrieved.
        **({"retrieval": retrieval} if retrieval else {}),
        "environments": _distinct(environments),
        "notes": [*_notes(asked, every, cells, latest), *_left_out_seeds(arms, cells, split)],
    }


def _cell(cell: Row, row: Row | None, metrics: Mapping[str, str]) -> dict[str, Any]:
    """A cell of the grid with what its row says; without a row it was not run yet."""
    if row is None:
        return {**cell, "status": "not run", "reason": None, "cost": None, "splits": {}}
    splits = split_summaries(row.get("scores", ()), metrics)
    return {**cell, "status": row["status"], "reason": row.get("reason"), "cost": row.get("cost"), "splits": splits}


def split_summaries(scores: Sequence[Row], metrics: Mapping[str, str]) -> dict[str, Any]:
    """By split, learning and retention before and after, and every skill; only splits that have both."""
    splits: dict[str, dict[str, dict[str, Row]]] = {}
    for score in scores:
        split, _, rest = score["task"].partition("/")
        part, _, skill = rest.partition("/")
        # A benchmark task has one metric that counts, by whatever name.
        counts = score["metric"] == metrics.get(part) or skill.startswith("tasks/")
        if split in ("dev", "test") and part in PARTS and counts and score["before"] and score["after"]:
            splits.setdefault(split, {}).setdefault(part, {})[skill] = score
    whole = {split: parts for split, parts in splits.items() if parts.keys() == set(PARTS)}
    return {split: {part: _part(parts[part]) for part in PARTS} for split, parts in whole.items()}


def _part(skills: Mapping[str, Row]) -> dict[str, Any]:
    means = {side: mean_of_independent([_estimate(s[side]) for s in skills.values()]) for side in ("before", "after")}
    each = {
        skill: {"n": score["n"], "before": score["before"]["value"], "after": score["after"]["value"]}
        for skill, score in skills.items()
    }
    written = {side: _json(mean) for side, mean in means.items()}
    return {**written, "n": sum(score["n"] for score in skills.values()), "skills": each}


def _base(splits: Sequence[Row]) -> dict[str, Any]:
    """The base model as the first cell measured it: all cells measured the same."""
    first = splits[0]
    skills = {
        part: {s: {"n": v["n"], "value": v["before"]} for s, v in first[part]["skills"].items()} for part in PARTS
    }
    return {part: {**first[part]["before"], "n": first[part]["n"], "skills": skills[part]} for part in PARTS}


def _arm(
    name: str, own: Mapping[str, Any], cells: Sequence[Row], split: str | None, settings: Mapping[str, Any]
) -> dict[str, Any]:
    mine = [cell for cell in cells if cell["arm"] == name]
    done = [cell for cell in mine if split in cell["splits"]]
    by_rate: dict[float, list[Row]] = {}
    for cell in sorted(done, key=lambda cell: cell["learning_rate"]):
        by_rate.setdefault(cell["learning_rate"], []).append(cell)
    points = [_point(rate, [c["splits"][split] for c in group]) for rate, group in by_rate.items()]
    covered = _hypervolume(mine, split, tuple(settings["reference_point"])) if split else None  # pyright: ignore
    chosen = _pick(mine, points, split, settings["max_loss_points"], settings["outside_pick"])
    return {"name": name, "settings": dict(own), "points": points, "hypervolume": covered, "pick": chosen}


def _point(rate: float, splits: Sequence[Row]) -> dict[str, Any]:
    """A learning rate of an arm: over seeds where there are two or more, over items where there is one."""
    over = "seeds" if len(splits) > 1 else "items"
    values = {part: splits[0][part]["after"] for part in PARTS}
    if over == "seeds":
        values = {part: _json(t_interval([split[part]["after"]["value"] for split in splits])) for part in PARTS}
    skills = {part: _skill_means(splits, part) for part in PARTS}
    return {"learning_rate": rate, "seeds": len(splits), "interval_over": over, **values, "skills": skills}


def _skill_means(splits: Sequence[Row], part: str) -> dict[str, float]:
    return {s: _mean([split[part]["skills"][s]["after"] for split in splits]) for s in splits[0][part]["skills"]}


def _hypervolume(mine: Sequence[Row], split: str, reference: Point) -> dict[str, Any] | None:
    """Of every seed's own points; mean and interval over the seeds that have all learning rates of the arm."""
    values = hypervolume_by_seed(_places(mine, split), {cell["learning_rate"] for cell in mine}, reference)
    if not values:
        return None
    return {**_json(t_interval(list(values.values()))), "seeds": len(values), "by_seed": values}


def _places(mine: Sequence[Row], split: str) -> dict[int, dict[float, Point]]:
    """Learning and retention of an arm's finished cells by seed and learning rate."""
    places: dict[int, dict[float, Point]] = {}
    for cell in (cell for cell in mine if split in cell["splits"]):
        learning, retention = (cell["splits"][split][part]["after"]["value"] for part in PARTS)
        places.setdefault(cell["seed"], {})[cell["learning_rate"]] = (learning, retention)
    return places


def _left_out_seeds(arms: Sequence[Row], cells: Sequence[Row], split: str | None) -> list[str]:
    """How many seeds of each arm were begun and have no area, because they lack a learning rate."""
    begun = {a["name"]: {c["seed"] for c in cells if c["arm"] == a["name"] and split in c["splits"]} for a in arms}
    counted = {arm["name"]: (arm["hypervolume"] or {"seeds": 0})["seeds"] for arm in arms}
    left = [f"{name}: {len(s) - counted[name]} of {len(s)}" for name, s in begun.items() if len(s) > counted[name]]
    told = "Seeds begun that lack a learning rate of their arm, and are left out of its hypervolume"
    return [f"{told}: {'; '.join(left)}."] if left else []


def _mark_dominated(arms: Sequence[dict[str, Any]], base: Row | None) -> None:
    """Over all arms and the base model, on the means."""
    points = [point for arm in arms for point in arm["points"]]
    places = [tuple(point[part]["value"] for part in PARTS) for point in points]
    others = [tuple(base[part]["value"] for part in PARTS)] if base else []
    for point, hollow in zip(points, dominated([*places, *others]), strict=False):  # pyright: ignore
        point["dominated"] = hollow


def _pick(
    mine: Sequence[Row], points: Sequence[Row], split: str | None, limit: float, outside: Collection[str] = ()
) -> dict[str, Any]:
    """The capability-preserving pick of an arm, chosen on dev; or the reason why there is none.

    It does not look at the skills `outside`, as a preset of tasks may have it.
    """
    if split != "test":
        return {"reason": "The suite has no test items beside its dev items." if split else "No cell is finished."}
    rates = dict.fromkeys(point["learning_rate"] for point in points)
    # A rate that broke at one seed is not one to recommend.
    broken = {cell["learning_rate"] for cell in mine if cell["status"] != "complete"}
    by_rate = {r: [c["splits"]["dev"] for c in mine if c["learning_rate"] == r and "dev" in c["splits"]] for r in rates}
    if not any(by_rate.values()):
        return {"reason": "There were no dev items to choose on." if rates else "No cell of this arm is finished."}
    candidates = [candidate(rate, splits, outside) for rate, splits in by_rate.items() if splits and rate not in broken]
    if not candidates:
        return {"reason": "No learning rate of this arm is finished at all its seeds."}
    chosen = pick(candidates, limit)
    if chosen is None:
        return {"reason": none_kept("learning rate", candidates, limit)}
    point = next(point for point in points if point["learning_rate"] == chosen.setting)
    tested = [cell["splits"]["test"] for cell in mine if cell["learning_rate"] == chosen.setting]
    losses = losses_points(tested, outside)
    return {
        "learning_rate": chosen.setting,
        "dev": {"learning": chosen.learning, "losses_points": dict(chosen.losses_points)},
        "test": {part: point[part] for part in PARTS} | {"losses_points": losses},
        "interval_over": point["interval_over"],
        "seeds": point["seeds"],
        "kept_on_test": kept(losses, limit),
    }


def candidate(setting: float, dev: Sequence[Row], outside: Collection[str] = ()) -> Candidate:
    """What a setting's cells, one for each seed, show on dev."""
    learning = _mean([split["learning"]["after"]["value"] for split in dev])
    return Candidate(setting, learning, losses_points(dev, outside))


def none_kept(what: str, candidates: Sequence[Candidate], limit: float) -> str:
    """Why nothing was picked of these."""
    least = f"The least that the worst skill lost is {min(max(c.losses_points.values()) for c in candidates):.1f}."
    return f"No {what} keeps every retention skill within {limit:g} points on dev. {least}"


def losses_points(splits: Sequence[Row], outside: Collection[str] = ()) -> dict[str, float]:
    """What every retention skill but those `outside` lost against the base, percentage points, mean over seeds."""
    skills = [skill for skill in splits[0]["retention"]["skills"] if skill not in outside]
    lost = [{s: v["before"] - v["after"] for s, v in split["retention"]["skills"].items()} for split in splits]
    return {skill: 100 * _mean([row[skill] for row in lost]) for skill in skills}


def _notes(asked: Row, every: Sequence[Row], cells: Sequence[Row], latest: Mapping[str, Row]) -> list[str]:
    """What a reader of the numbers must know of what is not among them."""
    planned = {cell["fingerprint"] for cell in asked["cells"]}
    old = sum(row["fingerprint"] not in planned for row in every)
    counts = {status: sum(cell["status"] == status for cell in cells) for status in ("failed", "not run")}
    rows = "row of rows.jsonl is" if old == 1 else "rows of rows.jsonl are"
    notes = [f"{old} {rows} of other settings, model, documents, suite or scorers, and left out."] if old else []
    if counts["failed"]:
        notes.append(f"Failed cells: {counts['failed']}. Their reasons are listed; --retry-failed runs them again.")
    if counts["not run"]:
        notes.append(f"Cells not run yet: {counts['not run']}. The same command runs them.")
    said = [note for cell in cells for note in latest.get(cell["fingerprint"], {}).get("notes", ())]
    return [*notes, *dict.fromkeys(said)]


def nothing_measured(metrics: Mapping[str, str], rows: Sequence[Row], where: str = "no split has") -> ConfigError:
    """The error that says what could have been read of the rows instead of these metrics."""
    there = sorted({score["metric"] for row in rows for score in row["scores"] if score["task"].count("/") >= 2})
    found = f"Measured by the suite: {', '.join(there) or 'nothing'}"
    return ConfigError(
        f"learning_metric: {where} both learning skills with {metrics['learning']!r} and retention skills with "
        f"{metrics['retention']!r}. {found}. Give one of them, or another suite; the rows are kept."
    )


def _distinct(environments: Sequence[Row]) -> list[dict[str, Any]]:
    unique = {json.dumps({k: v for k, v in e.items() if k != "created"}, sort_keys=True) for e in environments}
    return [parse_json(text) for text in sorted(unique)]


def _mean(values: Sequence[float]) -> float:
    return math.fsum(values) / len(values)


def _estimate(written: Row) -> Estimate:
    interval = written["interval_95"]
    return Estimate(written["value"], tuple(interval) if interval else None)  # pyright: ignore


def _json(estimate: Estimate) -> dict[str, Any]:
    return {"value": estimate.value, "interval_95": estimate.interval_95 and list(estimate.interval_95)}
