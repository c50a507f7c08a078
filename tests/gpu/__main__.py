"""Check perjoule on a machine with an NVIDIA GPU.

python -m tests.gpu check --out OUT [--minutes 16] [STAGE …]     measure; all stages unless some are named
python -m tests.gpu rehearse --out OUT [STAGE …]                the same on a simulated board, without a GPU
python -m tests.gpu summary OUT                                 tables from the records
python -m tests.gpu pack KIT.tar.xz                             the packages that an offline machine lacks
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

STAGES = ("doctor", "meter", "sizes", "demo", "pytest", "proof", "batching", "tests")


def main(arguments: list[str]) -> int:
    """Run the command; return its exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.gpu", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, words in (("check", "measure on this machine's GPU"), ("rehearse", "rehearse on a simulated board")):
        one = commands.add_parser(name, help=words)
        one.add_argument("stages", nargs="*", choices=[*STAGES, []], metavar="STAGE", help=", ".join(STAGES))
        one.add_argument("--out", type=Path, required=True, help="folder of the records")
        one.add_argument("--minutes", type=float, default=16.0, help="time of all stages together (default 16)")
        one.add_argument("--archive", type=Path, help="also write the folder to this tar.gz, after each stage")
        if name == "check":
            one.add_argument("--kit", type=Path, help="packages from `pack`, on a machine without them")
    commands.add_parser("summary", help="print tables from the records").add_argument("out", type=Path)
    pack = commands.add_parser("pack", help="pack the packages that an offline machine lacks")
    pack.add_argument("kit", type=Path, help="file to write, e.g. kit.tar.xz")
    pack.add_argument("--python", default="3.12", help="Python version of that machine (default 3.12)")
    pack.add_argument(
        "--installed", type=Path, help="output of `python -m pip freeze` on that machine, or a list of names"
    )
    pack.add_argument(
        "--with",
        dest="more",
        action="append",
        default=[],
        help="further package or other version, without what it requires",
    )
    options = parser.parse_args(arguments)
    if options.command == "pack":
        from tests.gpu.packing import pack_kit

        return pack_kit(options.kit, options.python, options.installed, options.more)
    if options.command == "summary":
        from tests.gpu.tables import print_summary

        return print_summary(options.out)
    out, seconds, names = options.out.resolve(), 60 * options.minutes, list(options.stages)
    archive = options.archive and options.archive.resolve()
    if options.command == "rehearse":
        from tests.gpu.rehearsal import rehearse

        return rehearse(out, seconds, names, archive)
    from tests.gpu.packing import unpack_kit
    from tests.gpu.stages import ROOT, Check, all_stages

    environment = dict(os.environ)
    if options.kit is not None:
        sources = [str(ROOT / folder) for folder in ("bench", "suites", "reports")]
        environment["PYTHONPATH"] = os.pathsep.join([*sources, str(unpack_kit(options.kit))])
    stages = [stage for stage in all_stages(out, short=False) if not names or stage.name in names]
    return Check(out, seconds, environment, archive).run(stages)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
