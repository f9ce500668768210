"""A grid on a Ray cluster of several nodes on this machine, one of which dies in the midst."""

import json
import threading
import time
from collections import Counter

import pytest

from afterword.comparison import run as running
from afterword.settings.adapt import read_settings
from afterword.settings.compare import CompareSettings

GIVEN = {"model_name_or_path": "model", "documents": ["docs.jsonl"], "suite": "suite.jsonl", "output_dir": "out"}
GIVEN |= {"methods": "disc,finetune", "learning_rates": "1e-4,3e-4,1e-3", "seeds": "0,1"}
GIVEN |= {"adapt": {"max_steps": 2, "save_steps": 1}}
GIVEN |= {"evaluate": {"samples": 0, "answer_tokens": 4, "max_documents": 2}}


@pytest.fixture
def cluster(monkeypatch):
    """Three nodes with a processor each."""
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    # Otherwise whatever else runs here comes first.
    monkeypatch.setenv("RAY_worker_niceness", "0")
    clusters = pytest.importorskip("ray.cluster_utils")

    small = {"include_dashboard": False, "object_store_memory": 80 * 2**20}
    made = clusters.Cluster()
    try:
        made.nodes = [made.add_node(num_cpus=1, **small) for _ in range(3)]
        yield made
    finally:
        made.shutdown()


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_grid_of_which_a_node_dies_has_every_row_once(place, cluster):
    rows, killed = place / "out/rows.jsonl", []

    def kill_one():
        while not rows.exists() or rows.read_text().count("\n") < 2:
            time.sleep(0.2)
        cluster.remove_node(cluster.nodes[1], allow_graceful=False)
        killed.append(rows.read_text().count("\n"))

    killer = threading.Thread(target=kill_one, daemon=True)
    killer.start()
    summary = running.compare(read_settings({**GIVEN, "ray": cluster.address}, CompareSettings))
    killer.join()
    assert killed[0] < 10, "it died while cells ran"
    written = [json.loads(line) for line in rows.read_text().splitlines()]
    assert [row["status"] for row in written] == ["complete"] * 12
    assert set(Counter(row["fingerprint"] for row in written).values()) == {1}
    assert summary["finished"] == 12
    # The same cell run here gives the same scores.
    here = {**GIVEN, "methods": "disc", "learning_rates": "1e-4", "seeds": "0", "output_dir": "here"}
    running.compare(read_settings(here, CompareSettings))
    alone = json.loads((place / "here/rows.jsonl").read_text())
    assert [row["scores"] for row in written if row["fingerprint"] == alone["fingerprint"]] == [alone["scores"]]
