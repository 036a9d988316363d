"""A forked child lacks llama.cpp's compute threads: using a session there is an error at once, and harms nothing."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap

import pytest

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="the system has no fork")

_COMPUTED = """
    import os, signal, sys
    from internvl_gguf import InternVLError, Session

    session = Session.open("demo", n_threads=2)
    answer = session.ask("Hello?").text

    def in_child(action, leave=os._exit):
        sys.stdout.flush()
        pid = os.fork()
        if not pid:
            signal.alarm(60)  # a child that hangs dies, and its status says so
            try:
                action()
                print("done")
            except InternVLError as error:
                print(type(error).__name__, error.message, error.hint)
            sys.stdout.flush()
            leave(0)
        status = os.waitpid(pid, 0)[1]
        assert status == 0, f"the child ended with {status}"
"""


def run(script: str) -> list[str]:
    """The lines that a script prints in a process of its own; it fails with the script."""
    program = textwrap.dedent(_COMPUTED) + textwrap.dedent(script)
    result = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=300, start_new_session=True
    )
    assert result.returncode == 0, result.stderr
    assert "Traceback" not in result.stderr
    return result.stdout.splitlines()


@pytest.mark.parametrize(
    "action",
    [
        "lambda: session.ask('Hello?')",
        "lambda: list(session.stream('Hello?'))",
        "lambda: session.batch(['Hello?'])",
        "lambda: session.next_token_logprobs('Hello?')",
        "lambda: session.embed_image('no such file')",
        "lambda: session.save('anywhere')",
        "lambda: session.fork()",
        "lambda: session.runtime",
        "lambda: ThreadPool(2).map(session.ask, ['Hello?', 'And?'])",
        "lambda: Session.open('demo', n_threads=2)",
        "lambda: devices()",
        "lambda: list(stream)",
        "lambda: engine.work_until(lambda: False)",
        "lambda: engine.model.tokenize('Hello?')",
    ],
)
def test_a_child_forked_after_the_parent_computed_is_refused_and_does_not_hang(action: str) -> None:
    """OpenMP's threads are not copied: what the child computed waited for them for ever."""
    told, parent = run(
        f"""
        from multiprocessing.pool import ThreadPool
        from internvl_gguf.llama.library import devices
        stream = session.stream("Hello?")
        next(stream)
        engine = session.runtime.engine
        in_child({action})
        print("".join(chunk.text for chunk in stream)[-20:] == answer[-20:])
        """
    )
    assert told.startswith("SessionStateError This process was forked")
    assert "spawn" in told
    assert parent == "True"


def test_a_pool_of_forked_processes_is_refused_whether_it_is_given_the_session_or_opens_its_own() -> None:
    """`multiprocessing.Pool` forks by default on Linux up to Python 3.13, and hung."""
    own, given = run(
        """
        import multiprocessing

        def own(question):
            return Session.open("demo", n_threads=2).ask(question).text

        with multiprocessing.get_context("fork").Pool(1) as pool:
            for function in (own, session.ask):
                try:
                    print(pool.map(function, ["Hello?"]))
                except InternVLError as error:
                    print(type(error).__name__, error.message)
        """
    )
    assert own.startswith("SessionStateError This process was forked")
    assert given == "InvalidRequestError A Session can be neither copied nor sent to another process."


@pytest.mark.parametrize("leave", ["os._exit", "sys.exit"])
def test_a_child_neither_frees_nor_waits_for_what_its_parent_opened(leave: str) -> None:
    """Closing, collecting and leaving in the child touch nothing of the parent's, whose stream goes on."""
    told, parent = run(
        f"""
        import gc
        from internvl_gguf.llama import library

        stream = session.stream("Hello?")
        next(stream)
        freed = []
        for name in ("llama_free", "llama_model_free", "llama_sampler_free"):
            setattr(library.llama_cpp, name, lambda handle: freed.append(handle))
        library.mtmd_cpp.mtmd_free = freed.append

        def leave_everything():
            global session, stream
            session.close()
            session.close()
            stream.close()
            del session, stream
            gc.collect()
            assert not freed, freed

        in_child(leave_everything, {leave})
        print("".join(chunk.text for chunk in stream)[-20:] == answer[-20:])
        os._exit(0)
        """
    )
    assert (told, parent) == ("done", "True")


@pytest.mark.parametrize("leave", ["os._exit", "sys.exit"])
@pytest.mark.parametrize("kept", ["session", "garbage"])
def test_a_child_leaves_the_encoder_of_openvino_to_its_parent(leave: str, kept: str) -> None:
    """Its destructor waits for threads that the child lacks: every process started by a fork hung before it began."""
    script = f"""
        import gc
        from internvl_gguf.demo.__main__ import EXAMPLE

        gc.disable()
        session.close()
        session = Session.open("demo", n_threads=1, encoder="openvino")
        answer = session.ask("What number is written?", images=[EXAMPLE]).text
        kept = [session]
        if "{kept}" == "garbage":
            kept.append(kept)
            del kept, session
        in_child(gc.collect, {leave})
        print(answer, Session.open("demo", encoder="openvino").ask("What number is written?", images=[EXAMPLE]).text)
        """
    assert run(script) == ["done", "98 98"]


def test_a_child_forked_while_a_thread_computes_does_not_wait_for_that_thread() -> None:
    """The engine's turn is that of a thread which the child does not have."""
    told, parent = run(
        """
        import threading
        from internvl_gguf import SamplingParams

        begun, go_on, replies = threading.Event(), threading.Event(), []
        branch = session.fork()

        def hold(done, total):
            begun.set()
            go_on.wait(60)

        branch.on_tiles(hold)
        engine = session.runtime.engine
        ask = lambda: replies.append(branch.ask("What is it?", [bytes_of_a_picture]))
        from io import BytesIO
        from PIL import Image
        file = BytesIO()
        Image.new("RGB", (8, 8)).save(file, "PNG")
        bytes_of_a_picture = file.getvalue()
        thread = threading.Thread(target=ask)
        thread.start()
        begun.wait(60)

        def use_engine():
            branch.close()
            engine.forget()

        in_child(use_engine)
        go_on.set()
        thread.join()
        print(bool(replies))
        """
    )
    assert told.startswith("SessionStateError This process was forked")
    assert parent == "True"


def test_a_child_of_a_process_that_opened_nothing_opens_its_own() -> None:
    """The import alone, and the question which devices there are, leave a machine without a GPU as it was."""
    script = """
        import os, sys
        from internvl_gguf import Session
        from internvl_gguf.llama.library import devices

        if any(device.kind in ("gpu", "igpu") for device in devices()):
            print("answered")  # their drivers do not outlive a fork
            sys.exit()
        pid = os.fork()
        if not pid:
            with Session.open("demo", n_threads=2) as session:
                print("answered" if session.ask("Hello?").text else "")
            sys.stdout.flush()
            os._exit(0)
        sys.exit(os.waitpid(pid, 0)[1])
    """
    result = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script)], capture_output=True, text=True, timeout=300
    )
    assert (result.returncode, result.stdout) == (0, "answered\n"), result.stderr
