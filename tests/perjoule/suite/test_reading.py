from __future__ import annotations

import json
import re
import tomllib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perjoule.errors import SuiteError, UnknownNameError
from perjoule.suite.reading import cells_of, find_suite, load_suite, parse_suite, suite_names, write_suite
from perjoule.types import Suite

MINIMAL = """
name = "mine"
title = "Mine"
description = "A suite."
[prompts]
source = "prompts.txt"
[protocol]
[metrics]
primary = "lsnr"
names = ["lsnr"]
[[variants]]
name = "a"
model = "builtin:sd-tiny"
steps = [1, 2]
"""


def parse(text: str) -> Suite:
    return parse_suite(tomllib.loads(text), where="mine.toml")


def test_minimal_suite_gets_its_defaults() -> None:
    suite = parse_suite(tomllib.loads(MINIMAL), where="mine.toml")
    assert suite.variants[0].guidance == 7.5
    assert suite.protocol.seeds == (1,)
    assert [cell.cell_id for cell in cells_of(suite)] == ["a-001", "a-002"]


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ('model = "', 'modle = "', ["variants[0].modle", "did you mean 'model'"]),
        ("steps = [1, 2]", "steps = [1]\nguidance_scale = 3.0", ["guidance_scale", "did you mean 'guidance'?"]),
        ("steps = [1, 2]", "num_inference_steps = [1]", ["num_inference_steps", "did you mean 'steps'?"]),
        ('model = "', 'model_id = "', ["variants[0].model_id", "did you mean 'model'?"]),
        ("steps = [1, 2]", "steps = 4", ["variants[0].steps = 4", "write [4]"]),
        ('names = ["lsnr"]', 'names = "lsnr"', ["metrics.names = 'lsnr'", 'write ["lsnr"]']),
        ("[[variants]]", "[variants]", ["write [[variants]]"]),
        ("[protocol]", "[protocol]\nbach_size = 2", ["protocol.bach_size", "did you mean 'batch_size'"]),
        ('title = "Mine"', 'titel = "Mine"', ["titel", "did you mean 'title'", "title is missing"]),
        ("steps = [1, 2]", 'steps = ["1"]', ["variants[0].steps[0]", "'1'", "integer"]),
        ("steps = [1, 2]", "steps = [0]", ["variants[0].steps", "0 is out of range", "1 to 1000"]),
        ("steps = [1, 2]", "steps = [1000000]", ["1000000 is out of range"]),
        ("steps = [1, 2]", "steps = []", ["variants[0].steps is empty"]),
        ("steps = [1, 2]", "steps = [3, 3]", ["duplicate value"]),
        ("steps = [1, 2]", "steps = [1]\nlevels = [1.0]", ["variants[0].levels", "only for step policies"]),
        ("steps = [1, 2]", "policy = 'x'\nlevels = []", ["variants[0].levels is empty"]),
        ("steps = [1, 2]", "policy = 'x'\nlevels = [1.0, 1.0]", ["variants[0].levels", "duplicate"]),
        ("steps = [1, 2]", "policy = 'x'\nlevels = [1.0]\nsteps = [1]", ["variants[0].steps", "remove the key"]),
        ("steps = [1, 2]", "steps = [1]\ndtype = 'float8'", ["variants[0].dtype", "'float8'", "float32"]),
        ("steps = [1, 2]", "steps = [1]\nguidance = -1.0", ["variants[0].guidance = -1.0"]),
        ("steps = [1, 2]", "steps = [1]\nwidth_px = 100", ["width_px = 100", "multiple of 8"]),
        ('name = "a"', 'name = "a/b"', ["name = 'a/b'", "letters"]),
        ('primary = "lsnr"', 'primary = "lsrn"', ["metrics.primary = 'lsrn'", "lsnr"]),
        (
            "[protocol]",
            "[protocol]\nbatch_size = 4\nimages_per_window = 3",
            ["protocol.images_per_window = 3", "at least the largest batch (4)"],
        ),
        ("[protocol]", "[protocol]\nbatch_size = 0", ["protocol.batch_size = 0", "at least 1"]),
        (
            "[protocol]",
            "[protocol]\nmax_uncertainty = 2.0",
            ["max_uncertainty = 2.0", "between 0 and 1", "write 0.02 for 2 %"],
        ),
        ("[protocol]", "[protocol]\nseeds = []", ["protocol.seeds is empty"]),
        ('name = "mine"', 'name = "mine"\nschema = 2', ["schema = 2"]),
        ("steps = [1, 2]", "steps = [1, 2]\ntimesteps = [3, 1, 0]", ["timesteps has 3 entries", "steps = [3]"]),
        ("steps = [1, 2]", "steps = [2]\ntimesteps = [1, 3]", ["timesteps = [1, 3]", "must decrease"]),
        ("steps = [1, 2]", "steps = [1]\nguidance_mode = 'none'", ["guidance = 7.5", "1.0 or less"]),
        ("steps = [1, 2]", "steps = [1]\nlora = { model = 'a', fil = 'b' }", ["lora.fil", "did you mean 'file'"]),
        ("steps = [1, 2]", "steps = [1]\nruntime = { atention = 'math' }", ["runtime.atention", "'attention'"]),
        ("steps = [1, 2]", "steps = [1]\ncache = { kind = 'deep' }", ["cache.kind", "'deepcache'"]),
        (
            "steps = [1, 2]",
            "policy = 'p'\nlevels = [1]\nbatch_size = 4\nruntime = { compile = 'default' }",
            ["variants[0].runtime.compile = 'default'", "calls of many sizes", "batch_size = 1"],
        ),
        ("steps = [1, 2]", "steps = [2]\nguidance_share = 67", ["guidance_share = 67", "at most 1"]),
        ("steps = [1, 2]", "steps = [2]\nguidance_share = 0.5\nguidance = 1.0", ["no classifier-free guidance"]),
        (
            "steps = [1, 2]",
            "steps = [2]\nguidance_share = 0.5\ncache = { kind = 'deepcache' }",
            ["variants[0].guidance_share = 0.5", "a cache stores both halves"],
        ),
        (
            "steps = [1, 2]",
            "steps = [2]\nguidance_share = 0.5\nruntime = { compile = 'default' }",
            ["variants[0].guidance_share = 0.5", "compiled again"],
        ),
        ("[prompts]", '[prompts]\nselect = "clip-farthest"', ["prompts.select = 'clip-farthest'", "needs limit"]),
        ("[prompts]", '[prompts]\nselect = "farthest"', ["prompts.select = 'farthest'", "clip-farthest"]),
        ("[prompts]", '[prompts]\nsplit = "val"', ["prompts.split = 'val'", "dev"]),
        ("[prompts]", '[prompts]\nsha256 = "ab"', ["prompts.sha256 = 'ab'", "64 hex digits"]),
        ("[prompts]", '[prompts]\nrevision = "main"', ["prompts.revision", "only for data sets of the hub"]),
        ("[prompts]", '[prompts]\nhub_split = "train"', ["prompts.hub_split", "only for data sets of the hub"]),
        ('name = "mine"', 'name = "mine"\nvariants = []', None),
    ],
)
def test_a_fault_is_named_with_file_key_and_remedy(old: str, new: str, words: list[str] | None) -> None:
    text = MINIMAL.replace(old, new, 1)
    if words is None:
        with pytest.raises(tomllib.TOMLDecodeError):
            parse(text)
        return
    with pytest.raises(SuiteError) as caught:
        parse(text)
    assert "mine.toml" in str(caught.value)
    for word in words:
        assert word in str(caught.value)


def test_a_step_policy_may_be_compiled_for_single_images() -> None:
    settings = "policy = 'p'\nlevels = [1]\nbatch_size = 1\nruntime = { compile = 'default' }"
    suite = parse(MINIMAL.replace("steps = [1, 2]", settings))
    assert isinstance(suite, Suite)
    assert suite.variants[0].runtime.compile == "default"


def test_two_variants_of_one_name_are_refused() -> None:
    double = MINIMAL + '[[variants]]\nname = "a"\nmodel = "x"\nsteps = [1]\n'
    with pytest.raises(SuiteError, match="used twice"):
        parse(double)


def test_broken_toml_and_missing_file(tmp_path: Path) -> None:
    file = tmp_path / "s.toml"
    file.write_text("name = [")
    with pytest.raises(SuiteError, match="not valid TOML"):
        load_suite(file)
    with pytest.raises(SuiteError, match="no such file"):
        find_suite(str(tmp_path / "none.toml"))
    with pytest.raises(UnknownNameError, match="did you mean 'demo'"):
        find_suite("dmeo")


def test_every_builtin_suite_loads() -> None:
    assert "demo" in suite_names()
    for name in suite_names():
        assert load_suite(find_suite(name)).name == name


@given(
    steps=st.lists(st.integers(1, 1000), min_size=1, max_size=6, unique=True),
    guidance=st.floats(0, 20),
    seeds=st.lists(st.integers(0, 2**40), min_size=1, max_size=4, unique=True),
    limit=st.none() | st.integers(1, 10_000),
)
def test_writing_and_reading_a_suite_changes_nothing(
    tmp_path_factory: pytest.TempPathFactory, steps: list[int], guidance: float, seeds: list[int], limit: int | None
) -> None:
    table = tomllib.loads(MINIMAL)
    table["variants"][0] |= {"steps": steps, "guidance": guidance}
    table["protocol"]["seeds"] = seeds
    if limit is not None:
        table["prompts"]["limit"] = limit
    suite = parse_suite(table, where="mine.toml")
    file = tmp_path_factory.mktemp("suite") / "suite.toml"
    write_suite(suite, file)
    again = load_suite(file)
    assert again == suite


def test_the_schema_is_json_and_forbids_unknown_keys() -> None:
    from perjoule.suite.reading import json_schema

    schema = json_schema()
    json.dumps(schema)
    assert schema["additionalProperties"] is False
    assert schema["$defs"]["Variant"]["additionalProperties"] is False


def test_every_key_of_a_suite_has_a_meaning():
    """The reference of suite keys takes the meanings from the docstrings."""
    from perjoule.suite.reading import json_schema

    schema = json_schema()
    for record, table in {"Suite": schema, **schema["$defs"]}.items():
        attributes = table["description"].partition("Attributes:\n")[2]
        assert set(re.findall(r"^    (\w+): \S", attributes, re.MULTILINE)) == set(table["properties"]), record


@pytest.mark.parametrize(
    ("key", "value", "most"),
    [
        ("batch_size", 2_000_000_000, "1,000,000"),
        ("blocks", 2_000_000_000, "1,000,000"),
        ("iterations", 2**63 - 1, "1,000,000"),
        ("warmup_iterations", 2**63 - 1, "1,000,000"),
        ("images_per_window", 2**40, "1,000,000"),
        ("threads", 2**31 - 1, "4,096"),
        ("idle_s", 1e300, "86,400"),
        ("cooldown_s", 1e9, "86,400"),
    ],
)
def test_numbers_that_would_fill_the_memory_or_never_end_are_refused(key: str, value: float, most: str) -> None:
    with pytest.raises(SuiteError, match=rf"mine\.toml: protocol\.{key} = .*: must be at most {most}"):
        parse(MINIMAL.replace("[protocol]", f"[protocol]\n{key} = {value}"))


@pytest.mark.parametrize(
    "line",
    ["a." * 100_000 + "b = 1", "[" + "a." * 100_000 + "b]\n" + "c = 1\n" * 10, '"x"' + " . 'a'" * 1000 + " = 1"],
)
def test_keys_of_many_parts_are_refused_before_they_are_parsed(tmp_path: Path, line: str) -> None:
    """The parser's time grows with the square of the parts: a file of 16 MiB would take days."""
    (tmp_path / "a.toml").write_text(MINIMAL + line)
    number = MINIMAL.count("\n") + 1
    with pytest.raises(SuiteError, match=rf"a\.toml: line {number}: a key of more than 16 parts"):
        load_suite(tmp_path / "a.toml")


def test_a_suite_of_megabytes_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.toml").write_bytes(b"#" * (2**24 + 1))
    with pytest.raises(SuiteError, match=r"a\.toml has 16 MiB, but perjoule reads at most 16 MiB"):
        load_suite(tmp_path / "a.toml")


def test_of_many_mistakes_the_first_are_shown() -> None:
    with pytest.raises(SuiteError, match="and 81 more") as caught:
        parse(MINIMAL + "\n".join(f"wrong{i} = 1" for i in range(101)))
    assert len(str(caught.value).splitlines()) == 21


@pytest.mark.parametrize(
    ("line", "key"),
    [
        ('scheduler = "DDIMScheduler\\nimport os"', "scheduler"),
        ('scheduler = "A, B"', "scheduler"),
        ('scheduler_args = { "a=1); import os #" = 1 }', "scheduler_args"),
        ('call_args = { "eta=0); import os #" = 1 }', "call_args"),
        ('call_args = { "import" = 1 }', "call_args"),
    ],
)
def test_no_name_brings_code_into_the_code_that_reports_print(line: str, key: str) -> None:
    """`recommend` and reports print code from the suite of a run directory, which somebody may execute."""
    with pytest.raises(SuiteError, match=rf"variants\[0\]\.{key}: '.*' is not a name in Python"):
        parse(MINIMAL + line)
