"""What the tests of commands share: a model that is loaded, and traced, once for all of them."""

import pytest


@pytest.fixture(scope="session")
def loaded_models():
    return {}


@pytest.fixture
def models_once(monkeypatch, loaded_models):
    """Commands of this process get the model of a folder from memory, where its weights are as they
    were: they read it, and never change it.
    """
    from tf_groupvit.models.groupvit import TFGroupViTModel

    load = TFGroupViTModel.from_pretrained

    def once(folder, *arguments, **keywords):
        files = tuple(sorted((file, file.stat().st_mtime_ns) for file in folder.iterdir()))
        key = (files, arguments, tuple(keywords.items()))
        if key not in loaded_models:
            loaded_models[key] = load(folder, *arguments, **keywords)
        return loaded_models[key]

    monkeypatch.setattr(TFGroupViTModel, "from_pretrained", once)
