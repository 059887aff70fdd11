import types

from unstuck.watcher.patches import Patches, like


def test_everything_is_put_back():
    owner = types.SimpleNamespace(kept=1)
    patches = Patches()
    patches.replace(owner, "kept", 2)
    patches.replace(owner, "new", 3)
    assert (owner.kept, owner.new) == (2, 3)
    patches.undo()
    assert owner.kept == 1
    assert not hasattr(owner, "new")


def test_what_others_replaced_after_us_stays():
    owner = types.SimpleNamespace(kept=1)
    patches = Patches()
    patches.replace(owner, "kept", 2)
    owner.kept = 5
    patches.undo()
    assert owner.kept == 5


def test_inherited_attributes_are_removed_again():
    class Base:
        def call(self):
            return "base"

    class Child(Base):
        pass

    patches = Patches()
    patches.replace(Child, "call", lambda self: "ours")
    assert Child().call() == "ours"
    patches.undo()
    assert "call" not in Child.__dict__
    assert Child().call() == "base"


def test_wrapper_looks_like_what_it_wraps():
    def original():
        """Says something."""

    def wrapper():
        pass

    assert (like(wrapper, original).__name__, wrapper.__doc__) == ("original", "Says something.")
