"""Looks at the package as it is installed: what a newcomer, a type checker and an agent find. With an argument, also at
the source distribution that it names."""

from __future__ import annotations

import sys
import tarfile
from importlib.metadata import distribution
from importlib.resources import files

import valetkey
import valetkey.onepassword
import valetkey.sync
import valetkey.testing


def main() -> int:
    found = distribution("valetkey")
    faults = []
    if found.version != valetkey.__version__:
        faults.append(f"the package says {found.version}, the module {valetkey.__version__}")
    for name in ("py.typed", "SKILL.md", "_proto/lease_pb2.pyi"):
        if not files("valetkey").joinpath(name).is_file():
            faults.append(f"there is no {name}")
    inside = [str(path) for path in found.files or ()]
    if not any(path.endswith(".dist-info/licenses/LICENSE") for path in inside):
        faults.append("the licence is not in it")
    if strangers := [path for path in inside if not path.startswith(("valetkey/", "valetkey-"))]:
        faults.append(f"it brings {strangers}")
    if "# valetkey" not in (found.metadata.get_payload() or ""):
        faults.append("the README is not in it")
    wanted = {"grpcio", "protobuf"}
    needs = {need.split(">")[0] for need in found.requires or () if "extra ==" not in need}
    if needs != wanted:
        faults.append(f"it needs {sorted(needs)}, not {sorted(wanted)} alone")
    if "Root-Is-Purelib: true" not in (found.read_text("WHEEL") or ""):
        faults.append("it is not pure Python")
    heavy = sorted({"agents", "langchain", "pydantic_ai", "google.adk", "pytest"} & sys.modules.keys())
    if heavy:
        faults.append(f"importing it imports {heavy}")
    for path in sys.argv[1:]:
        with tarfile.open(path) as content:
            names = {name.partition("/")[2] for name in content.getnames()}
        faults += [
            f"{name} is not in {path}" for name in ("README.md", "LICENSE", "pyproject.toml") if name not in names
        ]
        faults += [f"{name} is in {path}" for name in names if name.startswith(("tests/", "frameworks/", "dist/"))]
    for fault in faults:
        print(fault, file=sys.stderr)
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
