"""Bad arguments of the library end in a ValueError of at most two lines that names them."""

import pytest
from bad_calls import CALLS


@pytest.mark.parametrize("case", CALLS)
def test_bad_call(case):
    call, fragment = CALLS[case]
    with pytest.raises(ValueError) as raised:
        call()
    assert fragment in str(raised.value)
    assert len(str(raised.value).splitlines()) <= 2
