"""The user's own, which must still be run."""

import builtins

builtins.from_site = "the user's sitecustomize ran"
