"""The queries by group in docs/multi-node.md, run by Prometheus' own engine over counters whose ratio is known."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path

import pytest

pytestmark = pytest.mark.prometheus

DOC = Path(__file__).parents[2] / "docs" / "multi-node.md"

# 10 tokens/s on the head alone; 300 W there, of which 60 W idle; 200 W on the second node, of which 40 W idle. Another server is in no
# group.
SERIES = {
    'tokenwatt_tokens_total{instance="a", server="big", model="m", kind="generation"}': "0+600x20",
    'tokenwatt_tokens_total{instance="a", server="big", model="m", kind="prompt_computed"}': "0+9000x20",
    'tokenwatt_tokens_total{instance="b", server="other", model="m", kind="generation"}': "0+7777x20",
    'tokenwatt_energy_joules_total{instance="a", server="big", model="m", state="active"}': "0+14400x20",
    'tokenwatt_energy_joules_total{instance="a", server="big", model="m", state="idle"}': "0+3600x20",
    'tokenwatt_energy_joules_total{instance="b", server="big", model="m", state="active"}': "0+9600x20",
    'tokenwatt_energy_joules_total{instance="b", server="big", model="m", state="idle"}': "0+2400x20",
    'tokenwatt_energy_joules_total{instance="b", server="other", model="m", state="active"}': "0+55555x20",
    'tokenwatt_server_group_info{instance="a", server="big", group="llama"}': "1x20",
    'tokenwatt_server_group_info{instance="b", server="big", group="llama"}': "1x20",
}
EXPECTED_PER_MILLE = (20, 200)  # 10 tokens/s over 500 W, 100 W over 500 W


def test_the_documented_queries_give_the_known_ratios(tmp_path: Path, promtool: str) -> None:
    queries = re.findall(r"```promql\n(.*?)```", DOC.read_text(), re.DOTALL)
    assert len(queries) == len(EXPECTED_PER_MILLE)
    tests = {
        "tests": [
            {
                "interval": "1m",
                "input_series": [{"series": series, "values": values} for series, values in SERIES.items()],
                "promql_expr_test": [
                    {"expr": f"round(1000 * ({query}))", "eval_time": "15m", "exp_samples": [{"labels": '{group="llama"}', "value": value}]}
                    for query, value in zip(queries, EXPECTED_PER_MILLE, strict=True)
                ],
            }
        ]
    }
    file = tmp_path / "groups.yml"
    file.write_text(json.dumps(tests))  # JSON is YAML
    done = subprocess.run([promtool, "test", "rules", str(file)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
