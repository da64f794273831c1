"""What the universe says without importing is what importing gives."""

from __future__ import annotations

import subprocess
import sys

from nacre.dialects.text import DIALECTS
from nacre.passes.base import PASSES, load_passes
from nacre.universe import NACRE, pass_modules
from xdsl.universe import XDSL_UNIVERSE, Universe


def test_names_read_off_the_source_are_the_registered_ones():
    classes = {name: factory() for name, factory in NACRE.all_passes.items()}
    load_passes()
    assert classes == dict(sorted(PASSES.items()))
    assert all(cls.__module__.endswith(pass_modules()[name]) for name, cls in classes.items())


def test_all_dialects_are_there_and_no_name_is_xdsls():
    assert [factory() for factory in NACRE.all_dialects.values()] == list(DIALECTS)
    assert not set(NACRE.all_dialects) & set(XDSL_UNIVERSE.all_dialects)
    assert not set(NACRE.all_passes) & set(XDSL_UNIVERSE.all_passes)
    Universe.get_multiverse()


def test_nothing_is_imported_before_it_is_asked_for():
    code = (
        "import sys; from xdsl.universe import Universe; Universe.get_multiverse(); "
        "print(sorted(n for n in sys.modules if n.startswith('nacre') or n == 'numpy'))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "['nacre', 'nacre.universe']"


def test_loading_a_dialect_brings_what_is_registered_for_it():
    code = (
        "from nacre.universe import NACRE; NACRE.all_dialects['graph'](); "
        "from nacre.dialects.declarative import PATTERNS; from nacre.dialects.graph import ReluOp; "
        "from nacre.runtime.kernel import KERNELS; print(ReluOp in KERNELS, len(PATTERNS) > 10)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "True True"
