"""`internvl pick` as people run it: without a network, in narrow and wide terminals, for people and for scripts."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from typing import Any

import pytest

from internvl_gguf.models.local_files import demo_files
from internvl_gguf.planning.machine_memory import host_budget, total_host_memory

MODEL = "InternVL3-14B-Instruct"
OFFLINE = {"HF_HUB_OFFLINE": "1", "HF_ENDPOINT": "http://127.0.0.1:9", "NO_COLOR": "1", "COLUMNS": "100"}


def pick(*arguments: str, code: int = 0, **environment: str) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        [sys.executable, "-m", "internvl_gguf", "pick", *arguments],
        capture_output=True,
        text=True,
        env={**os.environ, **OFFLINE, **environment},
        check=False,
        timeout=120,
    )
    assert done.returncode == code, done.stderr
    assert "Traceback" not in done.stderr
    return done


def picked(*arguments: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(pick(*arguments, "--json").stdout)
    return found


def test_the_question_it_is_there_for() -> None:
    """12 GiB, two photos: answered without a network, the best first with a sentence why."""
    done = pick(MODEL, "--vram", "12GiB", "--ram", "32GiB", "--context", "8192", "--images", "2")
    lines = done.stdout.splitlines()
    assert re.fullmatch(
        r"Best: UD-Q4_K_XL, a little worse than unquantised; a question about 2 pictures takes [\d.]+ to \d+ s\.",
        lines[0],
    )
    assert (
        "For 12 GiB of VRAM and 32 GiB of RAM, 4 GiB of it for the system: a context of 8,192 tokens with 2 pictures "
        "(26 tiles, 6,660 tokens)." in lines
    )
    assert any(line.startswith("Why UD-Q4_K_XL: all 49 layers and the encoder on the GPU") for line in lines)
    assert "QUANT" in done.stdout
    assert "--headers reads their headers" in done.stderr


def test_json_has_every_number() -> None:
    found = picked(MODEL, "--vram", "12GiB", "--ram", "32GiB", "--context", "8192", "--images", "2")
    assert found["best"] == f"{MODEL}:UD-Q4_K_XL"
    assert found["budget"] == {"ram": 28 * 2**30, "vram": [12 * 2**30]}
    assert len(found["picks"]) + len(found["too_large"]) == 24
    row = found["picks"][0]
    assert row["source"] == "listing"
    assert row["mmproj"]["on_gpu"] is True
    assert row["gpu_layers"] == row["layers"] == 49
    host, gpu = row["memory"]["devices"]
    for device in (host, gpu):
        parts = [value for name, value in device.items() if name not in ("device", "total", "headroom")]
        assert sum(parts) == device["total"]
    assert gpu["headroom"] == 12 * 2**30 - gpu["total"] > 0
    assert row["memory"]["total"] == host["total"] + gpu["total"]
    assert row["memory"]["picture_positions"] == 2 * (13 * 256 + 2)
    decode = row["speed"]["decode_tokens_per_second"]
    assert 0 < decode["low"] <= decode["high"]
    assert row["bits_per_weight"] == pytest.approx(8 * row["bytes"] / row["parameters"])


def test_several_gpus() -> None:
    row = picked(MODEL, "--vram", "12GiB,8GiB", "--ram", "32GiB")["picks"][0]
    assert len(row["memory"]["devices"]) == 3
    assert sum(row["tensor_split"]) == pytest.approx(1)
    assert row["tensor_split"][0] > row["tensor_split"][1]


def test_one_gpu_where_one_holds_it_all() -> None:
    """Layers on a second one take its own buffers, and time on the way between them."""
    row = picked(MODEL, "--vram", "24GiB,12GiB", "--ram", "32GiB")["picks"][0]
    assert [device["device"] for device in row["memory"]["devices"]] == ["CPU", "GPU0"]
    assert row["tensor_split"] == []


def test_why_one_quant() -> None:
    done = pick(MODEL, "--vram", "12GiB", "--ram", "32GiB", "--why", "q6_k")
    assert "Q6_K, " in done.stdout
    assert "of the 24 that fit" in done.stdout
    assert "Sizes in" not in done.stderr, "the table has units of its own"
    assert "The best is UD-Q4_K_XL" in done.stdout
    assert "there is" in done.stdout
    same = pick(f"{MODEL}:Q6_K", "--vram", "12GiB", "--ram", "32GiB")
    assert same.stdout == done.stdout
    too_large = pick(MODEL, "--vram", "4GiB", "--ram", "8GiB", "--why", "BF16")
    assert "BF16 does not fit" in too_large.stdout
    one = json.loads(pick(MODEL, "--vram", "12GiB", "--ram", "32GiB", "--why", "Q6_K", "--json").stdout)
    assert one["quant"] == "Q6_K"
    assert "the nearest: " in pick(MODEL, "--vram", "12GiB", "--why", "Q6_M", code=1).stderr


def test_when_nothing_fits_whole_it_says_what_would() -> None:
    done = pick(MODEL, "--vram", "8GiB", "--ram", "32GiB")
    assert "What would fit whole:" in done.stderr
    assert "a smaller model, InternVL3-8B-Instruct" in done.stderr
    fixed = pick(MODEL, "--vram", "10GiB", "--ram", "32GiB", "--kv", "f16", "--images", "2", "--context", "16384")
    assert "--kv q8_0: " in fixed.stderr
    assert "--context 8192" in fixed.stderr


def test_when_nothing_fits_at_all() -> None:
    done = pick(MODEL, "--vram", "1GiB", "--ram", "2GiB", code=1)
    assert done.stdout == ""
    assert "the smallest, UD-IQ1_S, misses" in done.stderr
    assert "a smaller model, InternVL3-" in done.stderr
    found = json.loads(pick(MODEL, "--vram", "1GiB", "--ram", "2GiB", "--json", code=1).stdout)
    assert found["best"] is None
    assert len(found["too_large"]) == 24
    assert found["advice"]


def test_when_nothing_of_the_family_fits_it_says_so_of_the_family() -> None:
    """It named one model, and recommended the very command that was run."""
    done = pick("--for", "ocr", "--vram", "500MiB", "--ram", "1171MiB", code=1)
    told = " ".join(done.stderr.split())
    assert re.search(r"What would fit: --context \d+( --max-tiles \d+)?: InternVL\S+:\w+", told)
    assert re.search(
        r"No model of the family fits with a context of 8,192 tokens and 1 picture: the smallest, "
        r"InternVL\d[^:]*-1B[^:]*:\w+, misses [\d.]+ MiB\. "
        r"Take a smaller context, pictures of fewer tiles, fewer conversations, or more memory\.",
        told,
    )


@pytest.mark.parametrize(("ram", "left"), [(8, 7), (16, 14), (32, 28), (128, 124)])
def test_a_pc_keeps_memory_for_its_system(ram: int, left: int) -> None:
    """All of 16 GiB counted: "Best" left 0.19 GiB for the system and all programs."""
    found = picked(MODEL, "--vram", "4GiB", "--ram", f"{ram}GiB")
    assert found["budget"]["ram"] == left * 2**30
    assert all(row["memory"]["devices"][0]["total"] <= left * 2**30 for row in found["picks"])


def test_this_machine_keeps_memory_for_its_system_too() -> None:
    """With --vram alone the host is this machine, of which some is taken by its system already."""
    total = total_host_memory()
    assert picked(MODEL, "--vram", "24GiB")["budget"]["ram"] == host_budget(total) < total
    assert re.search(
        r"this machine's [\d.]+ GiB of RAM, [\d.]+ \wiB of it for the system", pick(MODEL, "--vram", "24GiB").stdout
    )


def test_without_a_model_the_family_is_ranked() -> None:
    found = picked("--vram", "8GiB", "--ram", "32GiB")
    assert found["best"].startswith("InternVL3-8B-Instruct:")
    assert len(found["models"]) >= 5
    assert {row["source"] for row in found["picks"]} == {"listing", "estimate"}
    done = pick("--vram", "8GiB", "--ram", "32GiB")
    assert "~: estimates" in done.stderr
    assert "It does not compare models" in done.stderr
    assert not re.search(r"(any|little|some|much) 0\.", done.stdout), "losses of several models stand side by side"


def test_for_a_task_every_model_has_a_row_with_its_published_points() -> None:
    done = pick("--for", "ocr", "--vram", "12GiB", "--ram", "32GiB")
    head, *rows = done.stdout[done.stdout.index("MODEL") :].splitlines()
    assert head.split()[-1] == "OCR"
    points = {row.split()[0].partition(":")[0]: row.split()[-1] for row in rows if row.startswith("InternVL")}
    assert points["InternVL3_5-8B"] == "83.4"
    assert points["InternVL3-8B-Instruct"] == "84.4*"
    assert points["InternVL2_5-4B"] == "?"
    assert len(points) >= 12
    assert "as published of InternVL3-14B, the same model after more training" in done.stdout
    for note in ("for BF16, with 6 to 24 tiles a picture", "*: of the model after more training", "?: no figures"):
        assert note in done.stderr
    assert len(done.stderr.splitlines()) <= 6, "what the columns mean, and no more"
    assert "--max-tiles 24 plans and asks with as many" in done.stdout
    finer = pick("--for", "ocr", "--vram", "12GiB", "--ram", "32GiB", "--max-tiles", "24")
    assert "as many" not in finer.stdout
    assert finer.stdout.splitlines()[-1].endswith("--max-tiles 24")


@pytest.mark.parametrize(
    ("task", "tiles"),
    [
        ("charts", "12 to 24 tiles a picture"),
        ("reasoning", "12 tiles a picture"),
        ("grounding", "6 tiles a picture"),
        ("VIDEO", "1 tile a frame"),
    ],
)
def test_each_task_tells_the_tiles_of_its_own_benchmarks(task: str, tiles: str) -> None:
    """All said "6 to 24"; and a task in capitals, as the column has it, was refused."""
    assert f"with {tiles};" in pick("--for", task, "--vram", "12GiB", "--ram", "32GiB").stderr


def test_for_video_a_clip_is_planned() -> None:
    """It planned for a photo of 13 tiles, and its command asked about one."""
    done = pick("--for", "video", "--vram", "12GiB", "--ram", "32GiB")
    assert "a question about a clip of 32 frames takes" in done.stdout.splitlines()[0]
    assert "with a clip of 32 frames (32 tiles, 8,256 tokens)" in done.stdout
    command = done.stdout.splitlines()[-1]
    assert '"What happens?" --video CLIP --frames 32' in command
    assert "--max-tiles" not in command, "a frame has one tile by itself"
    workload = picked("--for", "video", "--images", "8", "--max-tiles", "2", "--vram", "12GiB")["workload"]
    assert (workload["pictures"], workload["max_tiles"], workload["are_frames"]) == (8, 2, True)


@pytest.mark.parametrize("named", [("InternVL3-1B-Instruct", "14B"), ("InternVL3-1B-Instruct,14B",)])
def test_several_models_are_refused_with_what_can_be_compared(named: tuple[str, ...]) -> None:
    done = pick(*named, "--vram", "12GiB", code=2)
    assert len(done.stderr.strip().splitlines()) == 2
    assert "pick takes one model, or none for the whole family, and 2 were named" in done.stderr
    assert "Name one of InternVL3-1B-Instruct, 14B" in done.stderr


def test_experts_in_host_memory_are_no_layers_on_the_gpu() -> None:
    """ "all 49 layers without the experts of 38 and the encoder on the GPU" read as if the encoder were not."""
    done = pick("InternVL3_5-30B-A3B", "--vram", "8GiB", "--ram", "32GiB")
    assert re.search(r"all 49 layers and the encoder on the GPU, but the experts of \d+ layers in RAM,", done.stdout)
    assert re.search(r"^\w+ .* \d+\+\d+/49 ", done.stdout, re.M)
    assert "LAYERS behind +: their experts are in RAM." in done.stderr


def test_points_of_a_task_in_json() -> None:
    found = picked("--for", "reasoning", "--vram", "12GiB", "--ram", "32GiB")
    assert found["task"] == "reasoning"
    assert found["best"].startswith("InternVL3_5-8B:")
    published = {row["model"]: row["published"] for row in found["picks"]}
    assert published["InternVL3_5-8B"]["points"]["reasoning"] == 73.4
    assert published["InternVL3-8B-Instruct"]["of"] == "InternVL3-8B"
    assert published["InternVL2_5-4B"]["points"] == {"reasoning": 51.8}


def test_a_model_without_figures_says_so() -> None:
    done = pick("demo", "--for", "charts", "--context", "2048")
    assert "For charts: no figure of demo was found (ChartQA and InfoVQA)." in done.stdout
    assert done.stdout.splitlines()[-1].startswith("  internvl ask demo")
    refused = pick("--for", "cooking", code=2)
    assert "'ocr', 'charts', 'reasoning', 'video', 'grounding'" in " ".join(refused.stderr.split())


def test_many_pictures_do_not_ask_a_smaller_model_for_more_than_it_was_trained_for() -> None:
    """The answer stood there, and then the hint of a smaller model ended it with an error about n_ctx."""
    done = pick(MODEL, "--vram", "24GB", "--images", "20")
    assert "a context of 68,608 tokens" in done.stdout
    assert "internvl ask" in done.stdout


def test_pictures_that_the_models_do_not_hold_are_planned_as_a_question_cuts_them() -> None:
    family = pick("--vram", "48GiB", "--images", "20")
    assert "20 pictures of 13 tiles are more than the 32,768 tokens that some of these models" in family.stderr
    assert "20 pictures (120 tiles" in family.stdout
    assert "--max-tiles 5" in family.stdout
    one = picked("InternVL3-8B-Instruct", "--vram", "12GiB", "--images", "20")
    assert one["workload"]["max_tiles"] == 5
    assert any("InternVL3-8B-Instruct was trained for" in notice for notice in one["notices"])


def test_the_variable_names_the_model() -> None:
    done = pick("--vram", "12GiB", INTERNVL_MODEL="14B-Instruct")
    assert done.stdout.startswith("Best: UD-")


def test_the_gb_of_a_card_are_gib() -> None:
    """`--vram 12GB` picked for 11.18 GiB, which no card has."""
    of_card = pick(MODEL, "--vram", "12GB", "--ram", "32GiB")
    assert of_card.stdout == pick(MODEL, "--vram", "12GiB", "--ram", "32GiB").stdout
    assert "Read 12GB as 12GiB" in of_card.stderr
    both = pick(MODEL, "--vram", "2x12GB", "--ram", "32GB")
    assert "For 12 GiB + 12 GiB of VRAM and 32 GiB of RAM, 4 GiB of it for the system:" in both.stdout
    assert "Read 12GB as 12GiB and 32GB as 32GiB: GB of memory are powers of 1024." in both.stderr
    for wrong in ("12", "abc", "12GBx"):
        told = pick(MODEL, "--vram", wrong, code=2).stderr
        assert "of memory" in told
        assert "same" in told
        assert "decimal" not in told
        assert "powers of 1000" not in told
    assert "For 11.5 GiB of VRAM" in pick(MODEL, "--vram", "11.5GiB", "--ram", "32GiB").stdout


def test_a_mac_that_is_not_here() -> None:
    """Two thirds of its memory are for the GPU, and it is no consumer card."""
    done = pick(MODEL, "--mac", "16GB")
    assert "For a Mac of 16 GiB, 11 GiB of it for the GPU" in done.stdout
    assert "Apple M-series" in done.stderr
    found = picked(MODEL, "--mac", "64GiB")
    assert found["budget"]["vram"] == [48 * 2**30]
    assert "Leave --vram and --ram out" in pick(MODEL, "--mac", "16GiB", "--vram", "10GiB", code=2).stderr


def test_short_names_mean_the_model_that_was_checked() -> None:
    """`pick 14B` took InternVL3-14B, which nobody had looked into, with guessed sizes."""
    assert picked("14B", "--vram", "12GiB", "--ram", "32GiB")["models"] == [MODEL]


def test_without_a_gpu_larger_models_are_told_of() -> None:
    done = pick("--vram", "none", "--ram", "16GiB")
    assert re.search(r"^Larger models fit, but a question to InternVL\S+ would take .*--quality", done.stdout, re.M)
    assert "partly on the CPU" not in done.stderr


def test_what_two_gpus_have_left() -> None:
    two = pick(MODEL, "--vram", "8GiB,6GiB", "--ram", "32GiB").stdout
    assert re.search(r"left on GPU0, [\d.]+ [GM]iB on GPU1", two)
    one = pick(MODEL, "--vram", "24GiB,12GiB", "--ram", "32GiB").stdout
    assert "on GPU0, the other left alone" in one


def test_quality_takes_what_loses_nothing_where_it_fits() -> None:
    done = pick(MODEL, "--vram", "12GiB", "--ram", "32GiB", "--quality")
    assert done.stdout.startswith("Best: BF16, as exact as the published weights")
    assert "of the largest model" not in done.stdout


def test_the_command_is_the_last_thing_on_the_terminal() -> None:
    assert on_a_terminal(80, stderr=True)[-1].startswith("  internvl ask ")


def test_a_terminal_that_calls_itself_dumb_is_as_wide_as_it_is() -> None:
    """Editors' and logs' terminals; its tables were squeezed into 80 columns, a letter for each cell."""
    assert any(line.startswith("UD-Q4_K_XL  ") for line in on_a_terminal(160, term="dumb"))


def test_sizes_of_files_go_before_a_column_that_is_alike_in_all_rows() -> None:
    head = next(line for line in on_a_terminal(80, "--vram", "24GiB") if "QUANT" in line).split()
    assert "FILE" in head
    assert "KV" not in head
    partly = next(line for line in on_a_terminal(60, "--vram", "8GiB") if "QUANT" in line).split()
    assert "LAYERS" in partly


def test_a_question_of_minutes_is_said_first_with_what_shortens_it() -> None:
    lines = pick(MODEL, "--vram", "none", "--ram", "32GiB").stdout.splitlines()
    assert "minutes" in lines[0]
    assert lines[1].startswith("Sooner: ")
    assert "--max-tiles 4" in lines[1]
    assert "the smaller InternVL3-" in lines[1]


def test_the_penalty_of_a_quantised_cache_is_marked_as_measured_on_one_small_model() -> None:
    done = pick(MODEL, "--vram", "12GiB", "--ram", "32GiB", "--images", "2")
    assert re.search(r"UD-Q5_K_XL .* q8_0 .* \?", done.stdout)
    assert "measured on one small model" in done.stderr


def test_a_model_nobody_listed_is_estimated_without_a_network() -> None:
    done = pick("InternVL3-8B-Instruct", "--vram", "12GiB")
    assert "The sizes below are those that such quants usually have." in done.stderr


def test_this_machine_and_the_demo_model() -> None:
    done = pick("demo")
    assert "this machine's" in done.stdout
    assert "Sizes in MiB" in done.stderr


@pytest.mark.parametrize("columns", [60, 80])
def test_models_are_compared_by_the_time_of_a_question_on_a_narrow_terminal(columns: int) -> None:
    """QUESTION was left out, and at 60 columns each row was a paragraph: 38B looked as if it fitted a 12 GiB card."""
    lines = on_a_terminal(columns, "--for", "ocr", "--vram", "12GiB", "--ram", "64GiB", stderr=True, model="")
    (start,) = (number for number, line in enumerate(lines) if line.startswith("MODEL"))
    assert {"VRAM", "FREE", "QUESTION", "OCR"} <= set(lines[start].split())
    rows = [line for line in lines[start + 2 :] if re.match(r"\d\S*:\w+ ", line)]
    assert len(rows) >= 12
    assert any(re.match(r"3-38B-Instruct\S+ .* min ", row) for row in rows)
    assert max(map(len, lines[start : start + 2 + len(rows)])) <= columns
    told = " ".join(lines)
    assert re.search(r"\d+ more columns \([^)]*HOST RAM[^)]*\): widen the window", told)


def on_a_terminal(
    columns: int, *arguments: str, stderr: bool = False, term: str = "xterm", model: str = MODEL
) -> list[str]:
    """The lines that a terminal so wide shows, without colours; stderr's too if wanted."""
    import pty

    parent, child = pty.openpty()
    with subprocess.Popen(
        [sys.executable, "-m", "internvl_gguf", "pick", *filter(None, [model]), *(arguments or ("--vram", "12GiB"))],
        stdout=child,
        stderr=child if stderr else subprocess.DEVNULL,
        env={**os.environ, **OFFLINE, "COLUMNS": str(columns), "TERM": term},
    ) as process:
        os.close(child)
        shown = b""
        while True:
            try:
                data = os.read(parent, 4096)
            except OSError:  # the other end is closed
                break
            if not data:
                break
            shown += data
        assert process.wait() == 0
    os.close(parent)
    return re.sub("\x1b\\[[0-9;]*m", "", shown.decode()).splitlines()


@pytest.mark.parametrize("columns", [40, 60])
def test_a_narrow_terminal(columns: int) -> None:
    rows = on_a_terminal(columns)
    assert rows[-2] == "Run it:"  # on one line, to be copied
    assert any("tokens/s" in row.lower() for row in rows)
    assert not any("weights" in row.lower() for row in rows), "a narrow terminal gets fewer columns, not more"
    assert max(map(len, rows[:-1])) <= columns


def test_a_terminal_of_eighty_columns_gets_a_table() -> None:
    head = next(line for line in on_a_terminal(80) if "QUANT" in line).split()
    assert {"QUANT", "LAYERS", "VRAM", "FREE", "TOKENS/S", "LOSS"} <= set(head)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--vram", "12"), "has no unit"),
        (("--vram", "-1"), "is not a size"),
        (("--vram", "0"), "A GPU of no memory"),
        (("--vram", "lots"), "is not a size"),
        (("--vram", "12GiB,"), "not a memory budget"),
        (("--vram", "12GiB", "--ram", "12"), "has no unit"),
        (("--vram", "12GiB", "--max-tiles", "0"), "cannot be cut"),
        (("--vram", "12GiB", "--images", "9", "--context", "4096"), "take 29,970 tokens"),
        (("--vram", "12GiB", "--parallel", "999"), "conversations"),
    ],
)
def test_requests_that_cannot_be_meant(arguments: tuple[str, ...], said: str) -> None:
    done = pick(MODEL, *arguments, code=2)
    assert said in done.stderr
    assert len(done.stderr.strip().splitlines()) == 2
    assert done.stdout == ""


def test_a_context_beyond_the_model() -> None:
    done = pick("InternVL3-1B-Instruct", "--vram", "12GiB", "--context", "40000", code=2)
    assert "more than the 32,768 it was trained for" in done.stderr
    assert "--context 32768" in done.stderr


@pytest.mark.parametrize(
    ("model", "said"), [("nonesuch", "no model"), ("owner/none", "HF_HUB_OFFLINE"), ("/none/x.gguf", "no file")]
)
def test_a_model_that_cannot_be_had(model: str, said: str) -> None:
    done = pick(model, "--vram", "12GiB", code=1)
    assert said in done.stderr
    assert len(done.stderr.strip().splitlines()) == 2


def test_a_header_that_is_damaged(tmp_path: Any) -> None:
    path = tmp_path / "model-Q4_K_M.gguf"
    path.write_bytes(b"GGUF" + bytes(100))
    (tmp_path / "mmproj-F16.gguf").write_bytes(b"GGUF" + bytes(100))
    done = pick(str(path), code=1)
    assert len(done.stderr.strip().splitlines()) == 2


def test_an_encoder_that_lies_elsewhere(tmp_path: Any) -> None:
    """The hint was --mmproj FILE, which `pick` did not have."""
    demo = demo_files()
    text = tmp_path / "alone.gguf"
    text.write_bytes(demo.text.read_bytes())
    assert "--mmproj FILE" in pick(str(text), code=1).stderr
    done = pick(str(text), "--mmproj", str(demo.mmproj))
    command = done.stdout.splitlines()[-1].strip()
    assert command == f'internvl ask {text} "What is it?" -i PICTURE --mmproj {demo.mmproj}', "without :BF16"


def test_picking_loads_neither_llama_cpp_nor_numpy() -> None:
    """With a budget given it works on a machine where llama-cpp-python is not built."""
    script = (
        "import sys; from internvl_gguf.cli.group import app\n"
        f"sys.argv = ['internvl', 'pick', '{MODEL}', '--vram', '12GiB', '--json']\n"
        "try: app()\nexcept SystemExit: pass\n"
        "print([name for name in ('llama_cpp', 'numpy', 'PIL', 'huggingface_hub') if name in sys.modules],"
        " file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stderr.strip().splitlines()[-1] == "[]"


def test_a_name_that_several_models_have() -> None:
    refused = pick("--vram", "12GiB", "--why", "Q6_K", code=1)
    assert "InternVL3-8B-Instruct:Q6_K" in refused.stderr
    one = pick("--vram", "12GiB", "--why", "InternVL3-8B-Instruct:Q6_K")
    assert "InternVL3-8B-Instruct:Q6_K, " in one.stdout


def test_the_command_to_run_it() -> None:
    done = pick(MODEL, "--vram", "12GiB", "--images", "3", "--max-tiles", "6")
    command = done.stdout.splitlines()[-1].split()
    assert command[:3] == ["internvl", "ask", f"{MODEL}:UD-Q4_K_XL"]
    assert command[-2:] == ["--max-tiles", "6"]


def test_a_gpu_too_small_to_be_of_use_is_left_alone() -> None:
    """450 MiB hold its driver and nothing else: as good as none, not worse."""
    with_it, without = (picked(MODEL, "--vram", vram, "--ram", "23GiB") for vram in ("450MiB", "none"))
    assert with_it["best"] == without["best"]
    assert with_it["picks"][0]["memory"] == without["picks"][0]["memory"]
    assert "--vram none" in pick(MODEL, "--vram", "450MiB", "--ram", "23GiB").stdout
