"""What DCP, safetensors and torch.save wrote becomes a step, and a step becomes theirs, to the last bit."""

from __future__ import annotations

import io
import json
import os
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from torch.distributed.checkpoint.state_dict_loader import load as dcp_load
from torch.distributed.checkpoint.state_dict_saver import save as dcp_save

from pccl_py.checkpoint import dcp_metadata, export_step, folder
from pccl_py.checkpoint.dcp_metadata import read_index
from pccl_py.checkpoint.export_step import as_state
from pccl_py.checkpoint.import_sources import read_any
from pccl_py.checkpoint.verify import verify_step
from pccl_py.cli import main
from pccl_py.errors import BusyError, CheckpointError, DamagedError, StateError

pytestmark = pytest.mark.filterwarnings("ignore:torch.distributed is disabled")


def trained() -> dict[str, Any]:
    torch.manual_seed(4)
    model = torch.nn.Sequential(torch.nn.Linear(6, 5), torch.nn.BatchNorm1d(5))
    inner = torch.optim.AdamW(model.parameters())
    model(torch.randn(4, 6)).sum().backward()
    inner.step()
    return {
        "model": model.state_dict(),
        "inner": inner.state_dict(),
        "step": 7,
        "mixed": [1.5, torch.ones(3, dtype=torch.bfloat16), {"half": torch.ones(2).half(), "a/b": (1, "x")}],
        "empty": {"none": torch.zeros(0, 4)},
    }


def equal(a: Any, b: Any) -> bool:
    if isinstance(a, torch.Tensor):
        return a.dtype == b.dtype and a.shape == b.shape and torch.equal(a, b)
    if isinstance(a, dict):
        return list(a) == list(b) and all(equal(a[key], b[key]) for key in a)
    if isinstance(a, list | tuple):
        return type(a) is type(b) and len(a) == len(b) and all(map(equal, a, b))
    return bool(type(a) is type(b) and a == b)


def imported(source: Path, root: Path, *more: str) -> Any:
    assert main(["ckpt", "import", str(source), str(root), "--step", "3", "--json", *more]) == 0
    step = folder.find(root, 3)
    assert step.manifest is not None and verify_step(step.path).sound
    return as_state(step.path, step.manifest)


def test_a_file_of_torch_save_comes_back_with_its_types(tmp_path: Path) -> None:
    torch.save(trained(), tmp_path / "a.pt")
    state = imported(tmp_path / "a.pt", tmp_path / "root")
    assert equal(dict(state), {**trained(), "model": dict(trained()["model"])})
    torch.optim.AdamW(torch.nn.Linear(6, 5).parameters())  # its state_dict has integer keys
    assert list(state["inner"]["state"]) == [0, 1, 2, 3]


def test_a_plain_state_dict_is_the_part_model(tmp_path: Path) -> None:
    model = trained()["model"]
    torch.save(model, tmp_path / "a.pt")
    assert equal(imported(tmp_path / "a.pt", tmp_path / "root"), {"model": dict(model)})
    assert equal(imported(tmp_path / "a.pt", tmp_path / "other", "--part", "ema"), {"ema": dict(model)})


def test_tensors_that_share_memory_are_saved_once(tmp_path: Path) -> None:
    weight = torch.randn(50, 4)
    torch.save({"embed": weight, "head": weight, "rows": weight[:10]}, tmp_path / "a.pt")
    state = imported(tmp_path / "a.pt", tmp_path / "root")["model"]
    assert state["embed"] is state["head"] and torch.equal(state["rows"], weight[:10])
    assert len(folder.find(tmp_path / "root").manifest.tensors) == 2  # type: ignore[union-attr]


def test_what_weights_only_refuses_is_refused_and_can_be_left_out(tmp_path: Path) -> None:
    class Stranger:
        def __reduce__(self) -> Any:
            return os.system, (f"touch {tmp_path / 'owned'}",)

    torch.save({"model": torch.ones(2), "more": Stranger()}, tmp_path / "a.pt")
    with pytest.raises(StateError, match="weights_only=True"):
        read_any(tmp_path / "a.pt")
    torch.save({"model": {"w": torch.ones(2)}, "more": {"t": torch.ones(2).to_sparse()}}, tmp_path / "b.pt")
    with pytest.raises(StateError, match="more/t.*dense"):
        read_any(tmp_path / "b.pt")
    assert list(read_any(tmp_path / "b.pt", skip=["more/t"]).objects) == ["model", "more"]
    assert not (tmp_path / "owned").exists()


def test_what_is_left_out_may_be_called_as_in_the_source_and_has_to_be_there(tmp_path: Path) -> None:
    torch.save({"w": torch.ones(2), "ema": {"w": torch.ones(3)}}, tmp_path / "a.pt")
    safetensors.torch.save_file({"w": torch.ones(2), "ema.w": torch.ones(3)}, tmp_path / "a.safetensors")
    dcp_save({"model": {"w": torch.ones(2), "ema": {"w": torch.ones(3)}}}, checkpoint_id=tmp_path / "dcp")
    for source in ("a.pt", "a.safetensors", "dcp"):
        for skip in ("ema", "model/ema"):
            if source == "dcp" and skip == "ema":
                skip = "model.ema"
            found = read_any(tmp_path / source, skip=[skip])
            assert [one.name for one in found.sources] == ["model/w"], (source, skip)
        with pytest.raises(StateError, match="nothing there is called 'emma'"):
            read_any(tmp_path / source, skip=["ema" if source != "dcp" else "model.ema", "emma"])


def test_what_is_a_checkpoint_of_ours_already_is_not_taken_for_another_s(tmp_path: Path) -> None:
    torch.save({"w": torch.ones(2)}, tmp_path / "a.pt")
    imported(tmp_path / "a.pt", tmp_path / "root")
    for source in (tmp_path / "root", folder.step_path(tmp_path / "root", 3)):
        with pytest.raises(StateError, match="has steps of this format already"):
            read_any(source)


def test_safetensors_files_and_folders_are_read(tmp_path: Path) -> None:
    model = trained()["model"]
    parts = tmp_path / "parts"
    parts.mkdir()
    first, second = dict(list(model.items())[:3]), dict(list(model.items())[3:])
    safetensors.torch.save_file(first, parts / "model-1-of-2.safetensors")
    safetensors.torch.save_file(second, parts / "model-2-of-2.safetensors")
    state = imported(parts, tmp_path / "root")
    assert equal({key: state["model"][key] for key in model}, dict(model))
    safetensors.torch.save_file(first, parts / "model-2-of-2.safetensors")
    with pytest.raises(StateError, match="several files"):
        read_any(parts)


def test_a_distributed_checkpoint_is_read(tmp_path: Path) -> None:
    dcp_save(trained(), checkpoint_id=tmp_path / "dcp", no_dist=True)
    state = imported(tmp_path / "dcp", tmp_path / "root")
    assert equal(dict(sorted(state["model"].items())), dict(sorted(trained()["model"].items())))
    assert (
        state["step"] == 7
        and state["mixed"][0] == 1.5
        and torch.equal(state["mixed"][1], trained()["mixed"][1])
    )
    assert torch.equal(state["inner"]["state"]["0"]["exp_avg"], trained()["inner"]["state"][0]["exp_avg"])


def test_every_way_out_gives_the_same_bits(tmp_path: Path) -> None:
    torch.save(trained(), tmp_path / "a.pt")
    imported(tmp_path / "a.pt", tmp_path / "root")
    root = str(tmp_path / "root")
    for to in ("torch", "dcp", "safetensors"):
        assert main(["ckpt", "export", root, str(tmp_path / to), "--to", to, "--json"]) == 0
        assert main(["ckpt", "export", root, str(tmp_path / to), "--to", to]) == 1, "it is not written over"
    loaded = torch.load(tmp_path / "torch", weights_only=True)
    assert equal(loaded, {**trained(), "model": dict(trained()["model"])})
    into = {"model": {key: torch.zeros_like(value) for key, value in trained()["model"].items()}}
    dcp_load(into, checkpoint_id=tmp_path / "dcp", no_dist=True)
    assert equal(into["model"], dict(trained()["model"]))
    tensors = safetensors.torch.load_file(tmp_path / "safetensors")
    assert torch.equal(tensors["model.0.weight"], trained()["model"]["0.weight"])
    out = tmp_path / "model.safetensors"
    assert main(["ckpt", "export", root, str(out), "--to", "safetensors", "--part", "model"]) == 0
    assert equal(
        dict(sorted(safetensors.torch.load_file(out).items())), dict(sorted(trained()["model"].items()))
    )
    assert main(["ckpt", "export", root, str(tmp_path / "x"), "--to", "torch", "--part", "nobody"]) == 1
    assert not (tmp_path / "x").exists()


def test_import_needs_a_free_step_and_a_source(tmp_path: Path) -> None:
    torch.save({"w": torch.ones(2)}, tmp_path / "a.pt")
    imported(tmp_path / "a.pt", tmp_path / "root")
    assert main(["ckpt", "import", str(tmp_path / "a.pt"), str(tmp_path / "root"), "--step", "3"]) == 1
    assert main(["ckpt", "import", str(tmp_path / "nobody"), str(tmp_path / "root"), "--step", "4"]) == 1
    with folder.hold(tmp_path / "root"), pytest.raises(BusyError), folder.hold(tmp_path / "root"):
        pass
    (tmp_path / "text").write_text("not a checkpoint at all")
    with pytest.raises(DamagedError, match="no safetensors file"):
        read_any(tmp_path / "text")
    os.mkfifo(tmp_path / "pipe")  # nobody will ever write to it
    with pytest.raises(DamagedError, match="nor a regular file"):
        read_any(tmp_path / "pipe")
    (tmp_path / "nothing").mkdir()
    with pytest.raises(DamagedError, match="neither"):
        read_any(tmp_path / "nothing")


class Call:
    """Pickled, it asks for a call of `function`."""

    def __init__(self, function: Callable[..., Any], *arguments: object) -> None:
        self.how = (function, arguments)

    def __reduce__(self) -> Any:
        return self.how


@pytest.mark.parametrize(
    "hostile",
    [
        Call(os.system, "touch owned"),
        Call(eval, "1"),
        Call(getattr, "a", "b"),
        Call(__import__, "os"),
        Call(open, "owned", "w"),
        {"state_dict_metadata": {}},
        [1, 2],
        None,
    ],
)
def test_a_hostile_metadata_runs_nothing(tmp_path: Path, hostile: object) -> None:
    for protocol in range(2, 6):
        (tmp_path / ".metadata").write_bytes(pickle.dumps(hostile, protocol))
        with pytest.raises(DamagedError):
            read_index(tmp_path)
    assert os.listdir(tmp_path) == [".metadata"]


def test_damaged_metadata_is_refused_or_still_bounded(tmp_path: Path) -> None:
    import random

    dcp_save({"w": torch.ones(3, 2), "n": {"a": 5}}, checkpoint_id=tmp_path / "dcp", no_dist=True)
    good = (tmp_path / "dcp" / ".metadata").read_bytes()
    index = read_index(tmp_path / "dcp")
    assert index.tensors["w"].shape == (3, 2) and index.paths["n.a"] == ("n", "a")
    rng = random.Random(9)
    for _ in range(600):
        data = bytearray(good)
        for _ in range(rng.randrange(1, 4)):
            data[rng.randrange(len(data))] = rng.randrange(256)
        (tmp_path / "dcp" / ".metadata").write_bytes(data)
        try:
            found = read_index(tmp_path / "dcp")
        except CheckpointError:
            continue
        for tensor in found.tensors.values():
            assert all("/" not in place.file for place in tensor.chunks.values())
    for end in range(0, len(good), 7):
        (tmp_path / "dcp" / ".metadata").write_bytes(good[:end])
        with pytest.raises(DamagedError):
            read_index(tmp_path / "dcp")


def test_places_outside_of_the_folder_are_refused(tmp_path: Path) -> None:
    from torch.distributed.checkpoint.filesystem import _StorageInfo
    from torch.distributed.checkpoint.metadata import (
        BytesStorageMetadata,
        Metadata,
        MetadataIndex,
    )

    for file in ("../secret", "/etc/passwd", "a/b", "", ".."):
        metadata = Metadata(
            {"n": BytesStorageMetadata()}, None, {MetadataIndex("n"): _StorageInfo(file, 0, 5)}
        )
        (tmp_path / ".metadata").write_bytes(pickle.dumps(metadata))
        with pytest.raises(DamagedError, match="no file of the folder"):
            read_index(tmp_path)
    metadata = Metadata({"n": BytesStorageMetadata()}, None, {MetadataIndex("n"): _StorageInfo("a", 0, 5)})
    (tmp_path / ".metadata").write_bytes(pickle.dumps(metadata))
    (tmp_path / "a").symlink_to("/etc/passwd")
    with pytest.raises(DamagedError, match="link"):
        read_any(tmp_path)


def test_json_says_what_was_made(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    torch.save({"w": torch.ones(2)}, tmp_path / "a.pt")
    imported(tmp_path / "a.pt", tmp_path / "root")
    about = json.loads(capsys.readouterr().out)
    assert about == {"step": 3, "kind": "torch", "tensors": 1, "bytes": 8, "parts": ["model"]}


@pytest.mark.parametrize("to", ["safetensors", "torch", "dcp"])
def test_an_export_that_fails_or_is_killed_leaves_nothing_under_its_name(
    tmp_path: Path, to: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.save(trained(), tmp_path / "a.pt")
    imported(tmp_path / "a.pt", tmp_path / "root")
    words = ["ckpt", "export", str(tmp_path / "root"), str(tmp_path / "out"), "--to", to]
    child = os.fork()
    if child == 0:  # killed where everything is written, and nothing has its name yet
        os.rename = lambda *_: os.kill(os.getpid(), 9)  # type: ignore[assignment]
        Path.rename = lambda *_: os.kill(os.getpid(), 9)  # type: ignore[assignment, method-assign]
        main(words)
        os._exit(1)
    assert os.waitpid(child, 0)[1] == 9
    assert not (tmp_path / "out").exists()
    with monkeypatch.context() as patched:
        patched.setattr(export_step, "read_tensor", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            main(words)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.pt", "root"]
    assert main(words) == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.pt", "out", "root"]


def test_members_of_an_enumeration_are_named_as_old_pythons_do_and_nothing_else_is() -> None:
    """Python before 3.11.4 writes getattr(enumeration, name)."""

    def loaded(module: str, name: str) -> Any:
        text = f"cbuiltins\ngetattr\n(c{module}\n{name}\nVTORCH_CONTIGUOUS_FORMAT\ntR."
        return dcp_metadata._Restricted(io.BytesIO(text.encode())).load()

    metadata = "torch.distributed.checkpoint.metadata"
    assert loaded(metadata, "_MEM_FORMAT_ENCODING").given == ("TORCH_CONTIGUOUS_FORMAT",)
    for module, name in [(metadata, "Metadata"), ("torch", "Size"), ("collections", "OrderedDict")]:
        with pytest.raises(pickle.UnpicklingError, match="no enumeration"):
            loaded(module, name)
