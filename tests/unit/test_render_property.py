"""`render` writes the same for the same objects, in whatever form and order files have them."""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from tempfile import TemporaryDirectory

import hypothesis.strategies as st
import pytest
import yaml
from hypothesis import given, settings

from tests.conformance.case import (
    VM,
    VM_SERVICE,
    Apply,
    Case,
    Manifest,
    ObjectId,
    applied,
    id_of,
    load_all,
)
from vmsvc_grpc.model.objects import IPFamily
from vmsvc_grpc.model.resolve import AddressRules
from vmsvc_grpc.reconciler.rules import Rules
from vmsvc_grpc.render import render

CASES = load_all(Path(__file__).parents[1] / "conformance" / "cases")
EXAMPLES = 4
"""For each case; all of them take some 5 s."""


def objects_of(case: Case) -> list[Manifest]:
    """The VMs and VMServices as they are applied last, in the order of creation."""
    found: dict[ObjectId, Manifest] = {}
    for stage in case.stages:
        for edit in stage.edits:
            if isinstance(edit, Apply) and edit.manifest["kind"] in (VM, VM_SERVICE):
                id_ = id_of(edit.manifest)
                found[id_] = applied(found.get(id_), edit.manifest)
    return list(found.values())


def as_json(objects: Sequence[Manifest]) -> str:
    return "".join(f"{json.dumps(one, default=str)}\n" for one in objects)


class Quoting(yaml.SafeDumper):
    """Quotes every text: PyYAML writes `n` without quotes, which is false to kubectl, and to us."""


Quoting.add_representer(
    str, lambda dumper, text: dumper.represent_scalar("tag:yaml.org,2002:str", text, style='"')
)


def as_documents(objects: Sequence[Manifest]) -> str:
    return yaml.dump_all(map(dict, objects), Dumper=Quoting, explicit_start=True)


def as_flow(objects: Sequence[Manifest]) -> str:
    return "---\n".join(
        yaml.dump(dict(one), Dumper=Quoting, default_flow_style=True) for one in objects
    )


def as_list(objects: Sequence[Manifest]) -> str:
    return json.dumps({"apiVersion": "v1", "kind": "List", "items": list(objects)}, default=str)


FORMS = {as_json: "json", as_documents: "yaml", as_flow: "yml", as_list: "json"}


@pytest.mark.parametrize(
    "case", [case for case in CASES if objects_of(case)], ids=lambda case: case.id
)
@given(data=st.data())
@settings(max_examples=EXAMPLES)
def test_order_and_form_of_manifests_do_not_matter(case: Case, data: st.DataObject) -> None:
    objects = objects_of(case)
    order = data.draw(st.permutations(objects))
    cuts = sorted(data.draw(st.lists(st.integers(0, len(order)), max_size=3)))
    bounds = [0, *cuts, len(order)]
    with TemporaryDirectory() as one, TemporaryDirectory() as many:
        whole = Path(one, "all.json")
        whole.write_text(as_json(objects))
        for number, (start, end) in enumerate(pairwise(bounds)):
            form = data.draw(st.sampled_from(list(FORMS)))
            if start < end:
                Path(many, f"{number}.{FORMS[form]}").write_text(form(order[start:end]))
        assert rendered(case, Path(many)) == rendered(case, whole)


def rendered(case: Case, path: Path) -> tuple[int, str, int]:
    """The status, what is written, and of how many problems."""
    out, err = io.StringIO(), io.StringIO()
    families = tuple(map(IPFamily, case.ip_families))
    status = render(
        str(path),
        rules=AddressRules(families),
        held=Rules(
            load_balancer_provider=case.load_balancer_provider or "", cluster_families=families
        ),
        out=out,
        err=err,
    )
    return status, out.getvalue(), len(err.getvalue().splitlines())
