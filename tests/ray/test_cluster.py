"""Ray Data on a cluster of two nodes, started here: answers, errors as rows, and a node that is killed in the middle.

`make test-ray` runs these; they need Ray, 76 MB (the extra `ray`).
"""

from __future__ import annotations

import contextlib
import json
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import ray
import ray.data
from ray.cluster_utils import Cluster

from internvl_gguf import InvalidRequestError, Question, Reply, Session
from internvl_gguf.demo.pictures import draw_pictures, drawn_picture
from internvl_gguf.ray import answer
from tests.support.stand_in_rpc import dropping

pytestmark = pytest.mark.filterwarnings("ignore")  # Ray's own
PROMPT = "How many shapes are there?"
_REFUSAL = b"HTTP/1.1 400 Bad Request\r\n\r\n"
OPENING: dict[str, Any] = {"n_threads": 1, "n_ctx": 512, "n_parallel": 2, "max_tiles": 1}


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    """Two nodes of two CPUs; the second one may be taken away."""
    made = Cluster(initialize_head=True, head_node_args={"num_cpus": 2, "include_dashboard": False})
    made.add_node(num_cpus=2)
    made.wait_for_nodes()
    ray.init(address=made.address, logging_level="ERROR", log_to_driver=False)
    ray.data.DataContext.get_current().enable_progress_bars = False
    yield made
    ray.shutdown()
    made.shutdown()


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bulk") / "photos"
    draw_pictures(folder, 24)
    return folder


def local_answers(count: int) -> list[str]:
    with Session.open("demo", **OPENING) as session:
        pictures = [drawn_picture(seed).image for seed in range(1, count + 1)]
        outcomes = session.batch([Question(PROMPT, [picture]) for picture in pictures], max_tokens=8)
    return [outcome.text for outcome in outcomes if isinstance(outcome, Reply)]


def test_each_row_has_its_answer(cluster: Cluster, photos: Path) -> None:
    dataset = ray.data.read_images(str(photos), include_paths=True)
    found = answer(dataset, "demo", prompt=PROMPT, batch_size=5, asked={"max_tokens": 8}, **OPENING).take_all()
    assert len(found) == 24
    by_name = {Path(row["path"]).name: row for row in found}
    assert [by_name[f"{seed:04}.png"]["answer"] for seed in range(1, 25)] == local_answers(24)
    assert all(row["error"] == "" and row["tiles"] == 1 and row["finish_reason"] == "stop" for row in found)


def test_what_cannot_be_answered_is_an_error_of_its_row(cluster: Cluster, photos: Path) -> None:
    paths = [str(photos / "0001.png"), str(photos / "none.png"), None]
    dataset = ray.data.from_items([{"image": path, "label": number} for number, path in enumerate(paths)])
    prompt = "Is it {label}? {name}"
    found = answer(dataset, "demo", prompt=prompt, asked={"max_tokens": 4}, **OPENING).take_all()
    found.sort(key=lambda row: row["label"])
    assert [bool(row["error"]) for row in found] == [False, True, True]
    assert "no such file" in found[1]["error"]
    assert "no picture in the column image" in found[2]["error"]


def test_fields_of_a_schema_are_columns(cluster: Cluster, photos: Path) -> None:
    schema = {"type": "object", "properties": {"colour": {"type": "string"}, "count": {"type": "integer"}}}
    schema["required"] = ["colour", "count"]
    dataset = ray.data.from_items([{"image": (photos / "0001.png").read_bytes()}])
    (row,) = answer(dataset, "demo", prompt="Describe it.", schema=schema, **OPENING).take_all()
    assert row["parsed_count"] in row["parsed"]
    assert row["parsed_colour"]


def test_what_cannot_be_used_is_refused_before_anything_is_read(cluster: Cluster) -> None:
    dataset = ray.data.from_items([{"picture": "a.png", "label": "x"}])
    for arguments, message in (
        ({"prompt": "?"}, "no column image"),
        ({"prompt": "?", "image_column": "picture", "prompt_column": "label"}, "one question for each row"),
        ({"image_column": "picture"}, "one question for each row"),
        ({"prompt": "{labl}", "image_column": "picture"}, "place for {labl}"),
        ({"prompt": "?", "image_column": "picture", "concurrency": 0}, "concurrency is 0"),
        ({"prompt": "?", "image_column": "picture", "batch_size": 0}, "batch_size is 0"),
    ):
        with pytest.raises(InvalidRequestError, match=message.replace("{", r"\{")):
            answer(dataset, "demo", **arguments)


def test_arrays_are_pictures(cluster: Cluster) -> None:
    arrays = np.stack([np.asarray(drawn_picture(seed).image) for seed in (1, 2, 3)])
    dataset = ray.data.from_numpy(arrays)
    found = answer(dataset, "demo", prompt=PROMPT, image_column="data", asked={"max_tokens": 8}, **OPENING).take_all()
    assert sorted(row["answer"] for row in found) == sorted(local_answers(3))


def test_a_node_that_is_killed_loses_no_row(cluster: Cluster, photos: Path) -> None:
    lost = cluster.add_node(num_cpus=2)
    cluster.wait_for_nodes()
    items = [{"image": str(photos / f"{seed:04}.png"), "number": seed} for seed in range(1, 25)] * 4
    dataset = ray.data.from_items(items, override_num_blocks=48)
    answered = answer(dataset, "demo", prompt=PROMPT, batch_size=2, asked={"max_tokens": 8}, concurrency=3, **OPENING)
    found: list[dict[str, Any]] = []
    for row in answered.iter_rows():
        found.append(row)
        if len(found) == 4:
            cluster.remove_node(lost, allow_graceful=False)
    assert sorted(row["number"] for row in found) == sorted(list(range(1, 25)) * 4)
    assert all(row["error"] == "" for row in found)


def test_the_command_answers_on_a_cluster_and_goes_on(cluster: Cluster, photos: Path, tmp_path: Path) -> None:
    output = tmp_path / "answers.csv"
    command = [sys.executable, "-m", "internvl_gguf", "ask", "demo", PROMPT, "--batch", str(photos), "-o", str(output)]
    command += ["--ray", cluster.address, "-t", "1", "--max-tokens", "8", "--max-tiles", "1"]
    first = subprocess.run([*command, "--sample", "5"], capture_output=True, text=True)
    assert first.returncode == 0, first.stderr
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "5 of 24 lines were answered before." in done.stderr
    assert len(output.read_text().splitlines()) == 25


def test_a_model_that_no_actor_can_load_is_told_in_two_lines(cluster: Cluster, photos: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "internvl_gguf", "ask", "demo", "?", "--batch", str(photos)]
    command += ["--ray", cluster.address, "-o", str(tmp_path / "answers.csv")]
    impossible = subprocess.run([*command, "--n-ctx", "100000000"], capture_output=True, text=True)
    assert impossible.returncode == 1
    assert impossible.stdout == ""  # Ray told there that an actor was killed
    assert len(impossible.stderr.strip().splitlines()) == 2, impossible.stderr
    assert list(tmp_path.iterdir()) == []
    with_servers = subprocess.run([*command, "--rpc", "127.0.0.1:9"], capture_output=True, text=True)
    assert with_servers.returncode == 1
    assert "Leave --rpc out." in with_servers.stderr


def test_the_benchmark_of_its_cost_runs() -> None:
    script = Path(__file__).parents[2] / "benchmarks" / "ray_overhead.py"
    done = subprocess.run([sys.executable, str(script), "--quick", "--threads", "2"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout.splitlines()[-1])
    assert result["sides"]["2 actors"]["steady"]["median"] > 0
    assert result["simulated"] > 0


@pytest.mark.parametrize(
    ("says", "scheme"), [(b"", ""), (b"", "ray://"), (_REFUSAL, ""), (_REFUSAL, "ray://"), (b"\0\0\0\4\0\0\0\0\0", "")]
)
def test_another_program_at_the_address_is_told_in_two_lines(says: bytes, scheme: str, photos: Path) -> None:
    """Ray waits without end for one that is silent, and half a minute for one of HTTP/2, as proxies are."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        threading.Thread(target=_answer_all, args=(server, says), daemon=True).start()
        address = f"{scheme}127.0.0.1:{server.getsockname()[1]}"
        command = [sys.executable, "-m", "internvl_gguf", "ask", "demo", "?", "--batch", str(photos), "--ray", address]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60)
        server.shutdown(socket.SHUT_RDWR)
    assert done.returncode == 1
    assert len(done.stderr.strip().splitlines()) == 2
    assert address in done.stderr


@pytest.mark.skipif(sys.platform != "linux", reason="others refuse")
@pytest.mark.parametrize("scheme", ["", "ray://"])
def test_an_address_whose_packets_are_dropped_is_told_in_two_lines(scheme: str, photos: Path) -> None:
    with dropping() as endpoint:
        command = [sys.executable, "-m", "internvl_gguf", "ask", "demo", "?", "--batch", str(photos)]
        done = subprocess.run([*command, "--ray", scheme + endpoint], capture_output=True, text=True, timeout=60)
    assert done.returncode == 1
    assert done.stderr.startswith(f"Error: No cluster answers at {scheme}{endpoint}: timed out.")
    assert len(done.stderr.strip().splitlines()) == 2


def _answer_all(server: socket.socket, says: bytes) -> None:
    """Say the same to whoever connects."""
    with contextlib.suppress(OSError), contextlib.ExitStack() as stack:
        while True:
            connection = stack.enter_context(server.accept()[0])
            connection.sendall(says)
            if says == _REFUSAL:
                connection.shutdown(socket.SHUT_WR)


@pytest.mark.parametrize("address", ["127.0.0.1:9", "nonsense", "ray://127.0.0.1:9", "127.0.0.1:99999"])
def test_an_address_that_does_not_answer_is_told_in_two_lines(address: str, photos: Path) -> None:
    command = [sys.executable, "-m", "internvl_gguf", "ask", "demo", "?", "--batch", str(photos), "--ray", address]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 1
    assert len(done.stderr.strip().splitlines()) == 2, done.stderr
    assert "Traceback" not in done.stderr
