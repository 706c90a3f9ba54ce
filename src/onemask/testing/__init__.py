"""Tests that every method must pass, for methods of any package, to be run by pytest.

    # test_my_method.py
    import pytest
    from onemask.testing import *
    from onemask.testing import Candidate
    from my_method.model import MyConfig

    @pytest.fixture(scope="module")
    def candidate() -> Candidate:
        return Candidate(lambda: MyConfig(width=8).build(pretrained=False))

All tests use the fixture `candidate`, which each test module defines: a small method, since it processes some hundred
frames. With `pytest.register_assert_rewrite("onemask.testing")` in conftest.py, failed assertions show their values.

`sessions` tests a method in a session, `calls` its four calls alone; both use the clips of `known_clip` and the
fixtures of `fixtures`.
"""

from .calls import *  # noqa: F403
from .fixtures import *  # noqa: F403
from .known_clip import *  # noqa: F403
from .sessions import *  # noqa: F403
