"""Compiles every pipeline of the corpus and of the examples with the kfp SDK.

Each source file names what it gives in PIPELINES: file name -> pipeline, or a function that writes the
file by itself. Called by compile.sh.

    compile.py [FOLDER]           write the compiled files beside their sources
    compile.py --check [FOLDER]   write nothing; exit 1 and say which committed files differ

A folder of the corpus limits it to the sources in there.
"""
import gzip
import importlib.util
import os
import pathlib
import sys
import tarfile
import tempfile
import types
import warnings

warnings.filterwarnings('ignore')

from kfp import compiler  # noqa: E402

ROOT = pathlib.Path(__file__).resolve().parents[2]


def make_archives_repeatable():
    """Embedded files travel as archives; without times and owners they come out the same everywhere."""
    compress, add_info = gzip.compress, tarfile.TarFile.gettarinfo

    def gettarinfo(self, name=None, arcname=None, fileobj=None):
        info = add_info(self, name, arcname, fileobj)
        info.mtime = info.uid = info.gid = 0
        info.uname = info.gname = ''
        info.mode = 0o755 if info.isdir() else 0o644
        return info

    gzip.compress = lambda data, compresslevel=9, *, mtime=0: compress(data, compresslevel, mtime=0)
    tarfile.TarFile.gettarinfo = gettarinfo


def load(source: pathlib.Path):
    name = 'pipelines_' + source.parent.name.replace('-', '_') + '_' + source.stem
    spec = importlib.util.spec_from_file_location(name, source)
    module = importlib.util.module_from_spec(spec)
    # The SDK reads components' source through inspect, which looks modules up by name.
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module.PIPELINES


def compile_to(pipeline, path: pathlib.Path):
    if isinstance(pipeline, types.FunctionType):
        pipeline(path)
    else:
        compiler.Compiler().compile(pipeline, str(path))


def same(fresh: pathlib.Path, committed: pathlib.Path) -> bool:
    """Whether both hold the same; the comment that the SDK writes first has struct defaults in random order."""
    if not committed.exists():
        return False

    def content(path: pathlib.Path) -> bytes:
        data = path.read_bytes()
        if path.suffix != '.yaml':
            return data
        return b''.join(line for line in data.splitlines(keepends=True) if not line.startswith(b'#'))

    return content(fresh) == content(committed)


def main() -> int:
    make_archives_repeatable()
    arguments = sys.argv[1:]
    check = '--check' in arguments
    folders = [ROOT / argument for argument in arguments if argument != '--check']
    sources = sorted(ROOT.glob('examples/*/pipeline.py')) + sorted(ROOT.glob('test/corpus/*/pipelines*.py'))
    if folders:
        sources = [source for source in sources if source.parent in folders]
    stale, count = [], 0
    with tempfile.TemporaryDirectory() as scratch:
        for source in sources:
            for name, pipeline in load(source).items():
                count += 1
                committed = source.parent / name
                fresh = pathlib.Path(scratch) / f'{count}-{name}'
                compile_to(pipeline, fresh)
                if same(fresh, committed):
                    continue
                if check:
                    stale.append(os.path.relpath(committed, ROOT))
                else:
                    committed.write_bytes(fresh.read_bytes())
                    print('wrote', os.path.relpath(committed, ROOT))
    for name in stale:
        print(f'{name} differs from its source: run make corpus', file=sys.stderr)
    print(f'{count} pipelines compiled, {len(stale)} stale')
    return 1 if stale else 0


if __name__ == '__main__':
    sys.exit(main())
