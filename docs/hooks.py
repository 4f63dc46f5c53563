"""What `mkdocs.yml` needs beyond its settings: the repository's own pages, and links that leave docs/.

README.md, CONTRIBUTING.md, CHANGELOG.md and the model card become pages of the site, and each package gets a page of
its API, written here from the modules that there are. A link to a module leads to its place in the API; one to another
file of the repository becomes plain text, unless `repo_url` says where the repository is. A link to a file that does
not exist stays as it is, so that the strict build fails on it.
"""

import ast
import posixpath
import re
from pathlib import Path, PurePosixPath

import griffe
from mkdocs.structure.files import File

ROOT = Path(__file__).parents[1]
PAGES = {
    "README.md": "index.md",
    "CONTRIBUTING.md": "contributing.md",
    "CHANGELOG.md": "changelog.md",
    "helix_jax/pretrained/CARD.md": "model_card.md",
}
PACKAGES = ("helix_jax", "train")  # whose modules are documented, with all packages inside them
LINK = re.compile(r"\[([^\[\]]*)\]\(([^()\s#]+)(#[^()\s]*)?\)")


class Indices(griffe.Extension):
    """``counts[b][a]`` in a docstring stays what it is: as Markdown it would be a link to ``a``."""

    def on_object(self, *, obj, **_):
        if obj.docstring:
            obj.docstring.value = obj.docstring.value.replace("][", "]\u2060[")  # a word joiner, which is not seen


class Options(griffe.Extension):
    """A field that is an option of the command line, ``Annotated[int, Option("...")]``, has its help as docstring."""

    def on_attribute_instance(self, *, node, attr, **_):
        hint = getattr(node, "annotation", None)
        if isinstance(hint, ast.Subscript) and isinstance(hint.slice, ast.Tuple):
            kind, *notes = hint.slice.elts
            for note in notes:
                if isinstance(note, ast.Call) and isinstance(note.func, ast.Name) and note.func.id == "Option":
                    attr.annotation = griffe.safe_get_annotation(kind, parent=attr.parent)
                    attr.docstring = griffe.Docstring(ast.literal_eval(note.args[0]), parent=attr)


def on_files(files, config):
    """Add the pages that are not files of docs/, and name those of the API in the navigation."""
    for source, page in PAGES.items():
        files.append(File.generated(config, page, content=(ROOT / source).read_text("utf-8")))
    reference = {f"reference/{name}.md": text for name, text in sorted(api_pages().items())}
    for page, text in reference.items():
        files.append(File.generated(config, page, content=text))
    config.nav.append({"API": [{Path(page).stem: page} for page in reference]})
    return files


def on_page_markdown(markdown, page, config, **_):
    """Links of a page, which hold in the repository, as they hold in the site."""
    sources = {made: source for source, made in PAGES.items()}
    source = sources.get(page.file.src_uri, f"docs/{page.file.src_uri}")

    def rewritten(link):
        text, target, anchor = link[1], link[2], link[3] or ""
        if ":" in target or page.file.src_uri.startswith("reference/"):
            return link[0]
        path = posixpath.normpath(posixpath.join(posixpath.dirname(source), target))
        inside = PAGES.get(path, path.removeprefix("docs/") if path.startswith("docs/") else None)
        if inside:
            return f"[{text}]({posixpath.relpath(inside, posixpath.dirname(page.file.src_uri))}{anchor})"
        if path.startswith("..") or not (ROOT / path).exists():
            return link[0]
        documented = path.split("/")[0] in PACKAGES
        if documented and (path.endswith(".py") or (ROOT / path / "__init__.py").exists()):
            return f"[{text}][{module_of(path)}]"
        return f"[{text}]({config.repo_url}/blob/HEAD/{path}{anchor})" if config.repo_url else text

    return LINK.sub(rewritten, markdown)


def module_of(path):
    """Dotted name of the module in a file, or of the package in a folder, of the repository."""
    return ".".join(PurePosixPath(path.removesuffix("/__init__.py")).with_suffix("").parts)


def api_pages():
    """{package: the Markdown of its page, which asks mkdocstrings for each of its modules}."""
    pages = {}
    for package in PACKAGES:
        for init in sorted((ROOT / package).rglob("__init__.py")):
            modules = sorted(init.parent.glob("[!_]*.py"))
            name = module_of(init.relative_to(ROOT).as_posix())
            head = f"# {name}\n\n::: {name}\n    options:\n      members: false\n      show_root_heading: false\n"
            parts = [f"\n::: {module_of(path.relative_to(ROOT).as_posix())}\n" for path in modules]
            pages[name] = head + "".join(parts)
    return pages
