"""What holds for the whole tree: imports do nothing, and nothing is unsafe, too long or forgotten."""

import ast
import json
import os
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = ("analysis", "cofi_tune", "search_spaces")
INSTALLED = sorted(path for package in PACKAGES for path in (ROOT / package).rglob("*.py"))
SHIPPED = [*INSTALLED, *sorted((ROOT / "cluster").glob("*.py"))]
TESTS = sorted((ROOT / "tests").rglob("*.py"))
LONGEST = {"cofi_tune/modeling_cofi.py": 400}
"""Self-contained: it travels with the weights."""
UNPICKLING = {"pickle", "cPickle", "_pickle", "cloudpickle", "dill", "joblib", "shelve", "marshal"}

LOOK = """
import json, os, sys, threading
before = dict(os.environ), threading.active_count(), sorted(os.listdir("."))
import PACKAGE
heavy = {"torch", "ray", "transformers", "mlflow", "optuna", "numpy", "pandas", "datasets"} & set(sys.modules)
after = dict(os.environ), threading.active_count(), sorted(os.listdir("."))
print(json.dumps({"heavy": sorted(heavy), "before": before, "after": after}))
"""


@pytest.mark.parametrize("package", PACKAGES)
def test_an_import_costs_nothing_and_does_nothing(package: str, tmp_path: Path) -> None:
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("XDG_", "HF_", "RAY_"))}
    environment = {**kept, "HOME": str(tmp_path), "PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1"}
    command = [sys.executable, "-c", LOOK.replace("PACKAGE", package)]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    seen = json.loads(done.stdout)
    assert seen["heavy"] == []
    assert seen["before"] == seen["after"]
    assert list(tmp_path.iterdir()) == []


def nodes(path: Path) -> Iterator[ast.AST]:
    return ast.walk(ast.parse(path.read_text(encoding="utf-8"), str(path)))


def imported(path: Path) -> set[str]:
    """Top names of everything that a file imports, wherever in it."""
    names: set[str] = set()
    for node in nodes(path):
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names.add(node.module.split(".")[0])
    return names


def calls(path: Path) -> Iterator[tuple[str, dict[str, object]]]:
    """Every call: its dotted name, and its keywords with a constant value."""
    for node in nodes(path):
        if isinstance(node, ast.Call):
            constants = {
                k.arg: k.value.value for k in node.keywords if k.arg and isinstance(k.value, ast.Constant)
            }
            yield ast.unparse(node.func), constants


def unsafe(path: Path, in_tests: bool = False) -> list[str]:
    """What a file does that it must not. Tests may play the part of the attacker."""
    found = [f"imports {name}" for name in imported(path) & UNPICKLING if not in_tests]
    for name, constants in calls(path):
        if name == "torch.load" and constants.get("weights_only") is not True:
            found.append("torch.load without weights_only=True")
        if constants.get("trust_remote_code") is True and not in_tests:
            found.append("trusts remote code")
        pickles = constants.get("allow_pickle") is True or name.endswith((".read_pickle", ".to_pickle"))
        if pickles and not in_tests:
            found.append("reads or writes a pickle")
        if constants.get("shell") is True or name in ("os.system", "os.popen", "eval", "exec"):
            found.append(f"{name} runs text")
        if name in ("yaml.load", "yaml.unsafe_load", "yaml.full_load"):
            found.append(f"{name} builds objects")
    if not in_tests:
        texts = (n.value for n in nodes(path) if isinstance(n, ast.Constant) and isinstance(n.value, str))
        found.extend("binds to every interface" for text in texts if "0.0.0.0" in text)
    return found


def test_nothing_unsafe() -> None:
    found = {str(path.relative_to(ROOT)): unsafe(path) for path in SHIPPED}
    assert {path: what for path, what in found.items() if what} == {}


def test_nothing_unsafe_in_the_tests() -> None:
    found = {str(path.relative_to(ROOT)): unsafe(path, in_tests=True) for path in TESTS}
    assert {path: what for path, what in found.items() if what} == {}


@pytest.mark.parametrize(
    ("code", "what"),
    [
        ("import pickle", "imports pickle"),
        ("def f():\n    from cloudpickle import loads", "imports cloudpickle"),
        ("import torch\ntorch.load(p)", "torch.load without"),
        ("torch.load(p, weights_only=False)", "torch.load without"),
        ("A.from_pretrained(p, trust_remote_code=True)", "trusts remote code"),
        ("numpy.load(p, allow_pickle=True)", "pickle"),
        ("pandas.read_pickle(p)", "pickle"),
        ("subprocess.run(c, shell=True)", "runs text"),
        ("os.system(c)", "runs text"),
        ("yaml.load(text)", "builds objects"),
        ("serve(host='0.0.0.0')", "every interface"),
    ],
)
def test_the_check_sees_what_it_should(tmp_path: Path, code: str, what: str) -> None:
    (tmp_path / "bad.py").write_text(code)
    (found,) = unsafe(tmp_path / "bad.py")
    assert what in found


def test_the_check_lets_the_harmless_pass(tmp_path: Path) -> None:
    good = "torch.load(p, weights_only=True); model.eval(); yaml.safe_load(t); np.load(p, allow_pickle=False)"
    (tmp_path / "good.py").write_text(good)
    assert unsafe(tmp_path / "good.py") == []


def test_no_file_is_long() -> None:
    lengths = {
        p.relative_to(ROOT).as_posix(): len(p.read_text(encoding="utf-8").splitlines()) for p in SHIPPED
    }
    assert {path: n for path, n in lengths.items() if n > LONGEST.get(path, 300)} == {}


def test_every_package_is_installed() -> None:
    listed = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"]
    there = {path.parent.relative_to(ROOT).as_posix().replace("/", ".") for path in INSTALLED}
    assert sorted(listed) == sorted(there)


def test_the_model_file_needs_nothing_of_this_package() -> None:
    assert "cofi_tune" not in imported(ROOT / "cofi_tune" / "modeling_cofi.py")
    assert imported(ROOT / "cofi_tune" / "modeling_cofi.py") <= {
        "__future__",
        "collections",
        "math",
        "typing",
        "torch",
        "transformers",
    }


def test_methods_do_not_import_each_other() -> None:
    for path in (ROOT / "cofi_tune" / "methods").glob("*.py"):
        from_methods = [n for n in nodes(path) if isinstance(n, ast.ImportFrom) and n.module]
        assert not any(str(n.module).startswith("cofi_tune.methods.") for n in from_methods), path


def test_tests_are_found_by_their_place_alone() -> None:
    assert not list((ROOT / "tests").rglob("__init__.py"))
