"""vault: each user's folders and files, every version of each file, links and pages."""

from . import files, folders, frontmatter, links, paths, processing, publishing, vaults, versions
from .files import *
from .folders import *
from .frontmatter import *
from .links import *
from .paths import *
from .processing import *
from .publishing import *
from .vaults import *
from .versions import *

__all__: list[str] = []
__all__ += files.__all__
__all__ += folders.__all__
__all__ += frontmatter.__all__
__all__ += links.__all__
__all__ += paths.__all__
__all__ += processing.__all__
__all__ += publishing.__all__
__all__ += vaults.__all__
__all__ += versions.__all__
