"""Pages that MkDocs generates from the code at every build, and what the site needs changed in the others.

README and CONTRIBUTING become pages, and the pages under `reference/` come from what `perjoule` itself prints.
"""

from __future__ import annotations

import inspect
import json
import re
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import typer.main
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

from perjoule.cli import app
from perjoule.warnings import WARNINGS

ROOT = Path(__file__).parents[1]
_NAMES = {"object": "table", "array": "list"}


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the generated pages."""
    schemas = printed("schema")
    pages = {
        "index.md": top_level("README.md"),
        "contributing.md": top_level("CONTRIBUTING.md"),
        "reference/cli.md": cli_page(),
        "reference/suite-keys.md": suite_page(schemas["suite"]),
        "reference/schemas.md": schemas_page(schemas),
        "reference/warnings.md": warnings_page(),
        "reference/metrics.md": metrics_page(printed("list", "metrics", "--json")["metrics"]),
        "reference/suites.md": suites_page(printed("list", "suites", "--json")["suites"]),
    }
    for name, schema in schemas.items():
        if isinstance(schema, dict):
            pages[f"reference/schemas/{name}.json"] = json.dumps(schema, indent=2)
    pages["demo-report.html"] = demo_report()
    for path, text in pages.items():
        files.append(File.generated(config, path, content=text))
    return files


def on_page_markdown(markdown: str, page: Page, **_: Any) -> str:
    """Name the files of code blocks in the site's syntax, and replace links to source files by their paths."""
    markdown = markdown.replace("the report of this run,", "[the report of this run](demo-report.html),")
    markdown = re.sub(r"^```(\w+) (\S+)$", r'```\1 title="\2"', markdown, flags=re.MULTILINE)
    if page.file.src_uri.startswith("reference/"):
        return markdown
    return re.sub(r"\[`?([^]`]+)`?\]\(\.\./([^)]+)\)", _as_path, markdown)


def _as_path(link: re.Match[str]) -> str:
    text, path = link[1], link[2]
    return f"`{path}`" if path.endswith(text) else f"{text} (`{path}`)"


def top_level(name: str) -> str:
    """A document of the repository's top folder, with links as from `docs/`."""
    text = (ROOT / name).read_text(encoding="utf-8")
    text = re.sub(r"\]\((?!docs/|https?:|#)", "](../", text).replace("](docs/", "](")
    return text.replace("](../CONTRIBUTING.md)", "](contributing.md)").replace("](../README.md)", "](index.md)")


def printed(*arguments: str) -> Any:
    """What a `perjoule` command prints as JSON."""
    done = subprocess.run([sys.executable, "-m", "perjoule", *arguments], stdout=subprocess.PIPE, check=True)
    return json.loads(done.stdout)


def demo_report() -> str:
    """The report of the stored run."""
    with tempfile.TemporaryDirectory() as folder, zipfile.ZipFile(ROOT / "docs" / "demo-run.zip") as archive:
        archive.extractall(folder)
        subprocess.run([sys.executable, "-m", "perjoule", "report", folder], stdout=subprocess.DEVNULL, check=True)
        return (Path(folder) / "report.html").read_text(encoding="utf-8")


def cli_page() -> str:
    """Every verb with its arguments and options."""
    group: Any = typer.main.get_command(app)
    context = group.make_context("perjoule", [], resilient_parsing=True)
    verbs = "\n".join(_verb(group.get_command(context, name), context, name) for name in group.list_commands(context))
    return f"# Command line\n\n{verbs}\n[Exit codes](../exit-codes.md) are the same for all commands.\n"


def _verb(command: Any, parent: Any, name: str, level: str = "##") -> str:
    context = type(parent)(command, info_name=name, parent=parent)
    text = inspect.cleandoc(command.help or "").replace("\f", "")
    text, _, example = text.partition("Example: ")
    lines = [
        f"{level} {context.command_path}",
        "",
        "```console",
        context.get_usage(),
        "```",
        "",
        _safe(text.strip()),
        "",
    ]
    if example:
        lines += ["Example:", "", "```console", example.strip(), "```", ""]
    records = [record for p in command.get_params(context) if (record := p.get_help_record(context))]
    lines += _table(("argument or option", "meaning"), ((f"`{left.strip()}`", _safe(right)) for left, right in records))
    for inner in getattr(command, "commands", {}):
        lines.append(_verb(command.get_command(context, inner), context, inner, level + "#"))
    return "\n".join(lines)


def suite_page(schema: dict[str, Any]) -> str:
    """All keys of a suite file, by table."""
    lines = [
        "# Suite keys",
        "",
        "A suite is a TOML file. `perjoule plan FILE` checks it without generating anything.",
        "",
    ]
    for path, table in _tables("", schema, schema["$defs"]):
        about, meanings = _attributes(table.get("description", ""))
        lines += [f"## {path or 'Top level'}", "", _safe(about), ""]
        rows = (
            (f"`{key}`", _kind(value, f"{path}.{key}"), _default(key, value, table), _safe(meanings.get(key, "")))
            for key, value in table["properties"].items()
        )
        lines += _table(("key", "type", "default", "meaning"), rows)
    return "\n".join(lines)


def _tables(path: str, table: dict[str, Any], known: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """A table and those below it, with their paths in the file."""
    yield path, table
    for key, value in table["properties"].items():
        for name in re.findall(r'"#/\$defs/(\w+)"', json.dumps(value)):
            yield from _tables(f"{path}.{key}".lstrip("."), known[name], known)


def _attributes(docstring: str) -> tuple[str, dict[str, str]]:
    about, _, attributes = docstring.partition("Attributes:\n")
    entries = re.findall(r"^    (\w+): (.*(?:\n {8}.*)*)", attributes, re.MULTILINE)
    return about.strip(), {name: " ".join(text.split()) for name, text in entries}


def _kind(value: dict[str, Any], path: str) -> str:
    if "$ref" in value:
        return f"[table](#{path.replace('.', '')})"
    if "enum" in value or "const" in value:
        return ", ".join(f"`{json.dumps(each)}`" for each in value.get("enum", [value.get("const")]))
    if "anyOf" in value:
        return " or ".join(_kind(each, path) for each in value["anyOf"] if each.get("type") != "null")
    if value.get("type") == "array" and isinstance(value.get("items"), dict):
        return f"list of {_kind(value['items'], path)}"
    types = value.get("type", "any")
    kinds = [_NAMES.get(each, each) for each in (types if isinstance(types, list) else [types]) if each != "null"]
    return " or ".join(kinds)


def _default(key: str, value: dict[str, Any], table: dict[str, Any]) -> str:
    if key in table.get("required", ()):
        return "required"
    return f"`{json.dumps(value['default'])}`" if value.get("default") is not None else ""


def schemas_page(schemas: dict[str, Any]) -> str:
    """Every JSON document with its keys and a link to its schema."""
    lines = ["# JSON Schemas", "", "`perjoule schema` prints all of them as one object.", ""]
    for name, schema in schemas.items():
        if isinstance(schema, dict):
            about, meanings = _attributes(schema.get("description", ""))
            lines += [f"## {name}", "", _safe(about), "", f"[{name}.json](schemas/{name}.json)", ""]
            rows = (
                (f"`{k}`", _kind(v, "").replace("[table](#)", "table"), _safe(meanings.get(k, "")))
                for k, v in schema.get("properties", {}).items()
            )
            lines += _table(("key", "type", "meaning"), rows)
    return "\n".join(lines)


def warnings_page() -> str:
    """Every warning code."""
    lines = ["# Warning codes", "", "`perjoule explain CODE` prints one of them.", ""]
    for code, entry in WARNINGS.items():
        lines += [f"## {code}", "", _safe(entry.meaning), ""]
        lines += [f"- **Consequence:** {_safe(entry.consequence)}", f"- **Remedy:** {_safe(entry.remedy)}", ""]
    return "\n".join(lines)


def metrics_page(rows: list[dict[str, Any]]) -> str:
    """What each metric declares."""
    columns = ("description", "direction", "track", "margin", "licence", "commercial", "weights", "advisory")
    lines = ["# Metrics, as declared", "", "From `perjoule list metrics`; [Metrics](../metrics.md) describes them.", ""]
    table = ((f"`{row['metric']}`", *(_safe(_value(row[column])) for column in columns)) for row in rows)
    return "\n".join([*lines, *_table(("metric", *columns), table)])


def suites_page(rows: list[dict[str, Any]]) -> str:
    """The suites that come with the package."""
    lines = [
        "# Built-in suites",
        "",
        "From `perjoule list suites`; `perjoule plan NAME` shows what one would cost.",
        "",
    ]
    table = ((f"`{r['suite']}`", str(r["variants"]), str(r["cells"]), _safe(r["title"])) for r in rows)
    return "\n".join([*lines, *_table(("suite", "variants", "cells", "title"), table)])


def _value(value: Any) -> str:
    return {None: "", True: "yes", False: "no"}.get(value, str(value)) if not isinstance(value, float) else str(value)


def _table(heads: tuple[str, ...], rows: Iterator[tuple[str, ...]]) -> list[str]:
    cells = [[" ".join(cell.split()) for cell in row] for row in rows]
    shown = [column for column in range(len(heads)) if any(row[column] for row in cells)]
    if not shown:
        return []
    cells = [[row[column] for column in shown] for row in (heads, *cells)]
    lines = [cells[0], ["---"] * len(shown), *cells[1:]]
    return [*("| " + " | ".join(line) + " |" for line in lines), ""]


def _safe(text: str) -> str:
    """Escape what Markdown would take for markup outside of code."""
    parts = re.split(r"(`[^`]*`)", text)
    return "".join(
        part if part.startswith("`") else re.sub(r"[*|]|_(?=\w)", r"\\\g<0>", part.replace("<", "&lt;"))
        for part in parts
    )
