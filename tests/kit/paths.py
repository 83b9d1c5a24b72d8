"""Where things are."""

from pathlib import Path
from typing import Final

KIT: Final = Path(__file__).parent
ROOT: Final = KIT.parents[1]
