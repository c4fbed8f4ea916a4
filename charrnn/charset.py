"""Sets of characters as people write them: what stands inside the compile_charset of a regular expression."""

import re
import warnings

from charrnn.errors import SettingError


def compile_charset(field: str, characters: str) -> re.Pattern[str]:
    """The regular expression ``[characters]``, which matches one of them; nothing without any.

    Raises:
        SettingError: there is no such expression.
    """
    inside = re.sub(r"\\.|\]", lambda found: found[0].rjust(2, "\\"), characters, flags=re.DOTALL)  # "]" ends nothing
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # of what "[[" may come to mean
            return re.compile(f"[{inside}]" if inside else r"(?!)")
    except re.error as error:
        reason = f"cannot be {characters} ({error.msg})"
        raise SettingError(field, reason, "give characters and ranges, such as 'a-z \\n'") from None
