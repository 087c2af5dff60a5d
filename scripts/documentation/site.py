"""The repository's pages and the package's docstrings in; a site of static files out. A warning is
an error.

Each page lies in the room that it is about; here they are put together, and links to files that are
no pages become plain text.
"""

import logging
import re
import sys
import tempfile
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parents[2]
PICTURES = ROOT / ".github"

# Name on the site -> title, and file of the repository.
PAGES = {
    "index.md": ("Start", "README.md"),
    "commands.md": ("Commands", "tf_groupvit/cli/README.md"),
    "refinement.md": ("Sharper masks", "tf_groupvit/segmentation/README.md"),
    "training.md": ("Training data", "tf_groupvit/training/README.md"),
    "annotations.md": ("Annotations", "tf_groupvit/annotation/README.md"),
    "transformers.md": ("Coming from transformers", "tf_groupvit/models/README.md"),
    "serving.md": ("Serving", "serving/README.md"),
    "cluster.md": ("On a cluster", "serving/ray/README.md"),
    "edge.md": ("Without TensorFlow", "serving/edge/README.md"),
    "browser.md": ("In the browser, without a server", "serving/browser/README.md"),
    "speed.md": ("Speed", "scripts/benchmarks/README.md"),
    "differences.md": ("The embedded server", "tf_groupvit/server/DIFFERENCES.md"),
    "contract.md": ("What TensorFlow Serving does", "tf_groupvit/server/CONTRACT.md"),
    "architecture.md": ("Architecture", "tf_groupvit/README.md"),
    "contributing.md": ("Contributing", "CONTRIBUTING.md"),
    "upgrading.md": ("From 0.1", "tf_groupvit/FROM_0.1.md"),
    "changelog.md": ("Changelog", "CHANGELOG.md"),
}
# Name on the site -> title, and what of the package is described, in this order.
API = {
    "models.md": (
        "Models",
        ["models.groupvit", "models.text", "models.vision", "models.outputs", "config"],
    ),
    "preprocessing.md": ("Preprocessing", ["preprocessing.tokenizer", "preprocessing.image"]),
    "segmentation.md": (
        "Segmentation",
        [
            "segmentation.segmenter",
            "segmentation.result",
            "segmentation.prompts",
            "segmentation.protocol",
        ],
    ),
    "checkpoints.md": (
        "Checkpoints",
        ["hub", "checkpoints.reading", "checkpoints.safetensors_file", "models.conversion"],
    ),
    "serving.md": (
        "Export, server, client",
        ["export.saving", "export.check", "server.running", "server.options", "client"],
    ),
    "evaluation.md": (
        "Evaluation",
        ["evaluation.datasets", "evaluation.evaluator", "scenes.scene"],
    ),
    "annotation.md": (
        "Annotation",
        [
            "annotation.run",
            "annotation.records",
            "annotation.formats",
            "annotation.format_parts",
            "storage",
            "annotation.polygons",
        ],
    ),
    "errors.md": ("Errors", ["errors"]),
}

SETTINGS = {
    "site_name": "tf-groupvit",
    "theme": {
        "name": "material",
        "font": False,
        "features": ["navigation.sections", "content.code.copy"],
    },
    "use_directory_urls": False,  # the files can be opened without a server
    "strict": True,
    "validation": {"links": {"anchors": "warn", "not_found": "warn", "unrecognized_links": "warn"}},
    "markdown_extensions": [
        "tables",
        "admonition",
        "pymdownx.superfences",
        {"toc": {"permalink": True}},
    ],
    "plugins": [
        {"search": {}},
        {
            "mkdocstrings": {
                "handlers": {
                    "python": {
                        "paths": [str(ROOT)],
                        "options": {
                            "docstring_style": "google",
                            # One line may be about several parameters: "from_pt, from_tf: accepted
                            # ..."
                            "docstring_options": {
                                "warn_unknown_params": False,
                                "warn_missing_types": False,
                            },
                            "show_source": True,
                            "show_root_heading": True,
                            "heading_level": 2,
                            "inherited_members": True,
                            "members_order": "source",
                            "separate_signature": True,
                            "show_signature_annotations": True,
                            "signature_crossrefs": False,
                        },
                    }
                }
            }
        },
    ],
}


def build(output: Path) -> None:
    """Write the site into the folder, in place of what is there."""
    from mkdocs.commands.build import build as build_site
    from mkdocs.config import load_config

    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder, "docs")
        (source / "api").mkdir(parents=True)
        for name, (_, file) in PAGES.items():
            (source / name).write_text(linked(ROOT / file), encoding="utf-8")
        for name, (title, modules) in API.items():
            blocks = "\n\n".join(f"::: tf_groupvit.{module}" for module in modules)
            (source / "api" / name).write_text(f"# {title}\n\n{blocks}\n", encoding="utf-8")
        for picture in PICTURES.glob("*.png"):
            (source / picture.name).write_bytes(picture.read_bytes())
        nav: list[dict[str, Any]] = [{title: name} for name, (title, _) in PAGES.items()]
        nav.insert(3, {"API": [{title: f"api/{name}"} for name, (title, _) in API.items()]})
        settings = {**SETTINGS, "docs_dir": str(source), "site_dir": str(output), "nav": nav}
        configuration = Path(folder, "mkdocs.yml")
        configuration.write_text(yaml.safe_dump(settings, sort_keys=False))
        build_site(load_config(str(configuration)))


def linked(page: Path) -> str:
    """A page's text, its links leading to pages of the site; other files of the repository lose
    theirs.
    """
    names = {(ROOT / file).resolve(): name for name, (_, file) in PAGES.items()}

    def replaced(match: re.Match[str]) -> str:
        bang, text, target, anchor = match.groups()
        path = (page.parent / target).resolve()
        if path in names:
            return f"[{text}]({names[path]}{anchor or ''})"
        if bang:
            return f"![{text}]({path.name})"
        return text

    return re.sub(
        r"(!?)\[([^\]]+)\]\((?!https?:|#|mailto:)([^)#]+)(#[^)]*)?\)", replaced, page.read_text()
    )


if __name__ == "__main__":
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    build(Path(sys.argv[1]))
    print(f"Wrote {sys.argv[1]}/index.html")
