"""Fonts of pictures: matplotlib's defaults, followed by installed fonts for letters that these lack."""

from __future__ import annotations

import functools
import logging
import re
import unicodedata
import warnings
from collections.abc import Iterable

__all__ = ["families", "hint", "monospace"]

# Fonts with Chinese, Japanese and Korean letters, of Linux, macOS and Windows; those with all three come first.
_EAST_ASIAN = (
    "Noto Sans CJK JP", "Noto Sans CJK SC", "Noto Sans CJK TC", "Noto Sans CJK KR", "Noto Sans Mono CJK JP",
    "Source Han Sans", "Source Han Sans SC", "Arial Unicode MS", "Droid Sans Fallback", "WenQuanYi Zen Hei",
    "WenQuanYi Micro Hei", "PingFang SC", "PingFang HK", "Hiragino Sans GB", "Hiragino Sans", "Apple SD Gothic Neo",
    "Microsoft YaHei", "Microsoft JhengHei", "Yu Gothic", "Meiryo", "MS Gothic", "Malgun Gothic", "SimHei", "SimSun",
    "Noto Sans SC", "Noto Sans JP", "Noto Sans KR", "IPAexGothic", "IPAGothic", "TakaoGothic", "VL Gothic",
    "NanumGothic", "Baekmuk Gulim", "AR PL UMing CN", "AR PL UKai CN", "Unifont",
)  # fmt: skip
_HINT = (
    "No font that is installed has the letter {letter!r} ({code}), so the picture shows a box for it. For Chinese, "
    "Japanese and Korean, install one such as Noto Sans CJK (on Debian and Ubuntu the package fonts-noto-cjk); pages "
    "use the browser's fonts."
)


def families() -> list[str]:
    """The families of fonts for matplotlib's setting `font.family`, each for letters that the earlier ones lack."""
    import matplotlib

    own: list[str] = list(matplotlib.rcParams["font.family"])
    return own + [name for name in _fallbacks() if name not in own]


def monospace() -> list[str]:
    """The same for monospaced letters, as far as fonts have them."""
    return ["monospace", "DejaVu Sans", *_fallbacks()]


@functools.cache
def _fallbacks() -> tuple[str, ...]:
    from matplotlib.font_manager import fontManager

    # matplotlib reports fonts with unusual weights, which does not matter here.
    logging.getLogger("matplotlib.font_manager").addFilter(lambda record: "find font weight" not in record.msg)
    found = _installed()
    if not found:
        # matplotlib keeps its list of fonts, and does not notice those that are installed later.
        from matplotlib.font_manager import findSystemFonts

        for path in sorted(set(findSystemFonts()) - {font.fname for font in fontManager.ttflist}):
            try:
                fontManager.addfont(path)
            except Exception:  # a format that it cannot read
                continue
        found = _installed()
    return found


def _installed() -> tuple[str, ...]:
    from matplotlib.font_manager import fontManager

    names = set(fontManager.get_font_names())
    return tuple(name for name in _EAST_ASIAN if name in names)


def hint(said: Iterable[warnings.WarningMessage]) -> None:
    """Passes on warnings, except those about letters without a font, for which it gives one hint."""
    for one in said:
        glyph = re.match(r"Glyph (\d+) .*missing from font", str(one.message))
        if glyph is None:
            warnings.warn_explicit(one.message, one.category, one.filename, one.lineno)
        elif unicodedata.category(letter := chr(int(glyph[1])))[0] == "L":  # an emoji is a box anyway
            _hint_once(letter)


@functools.cache
def _hinted() -> list[str]:
    return []


def _hint_once(letter: str) -> None:
    if not _hinted():
        _hinted().append(letter)
        warnings.warn(_HINT.format(letter=letter, code=f"U+{ord(letter):04X}"), UserWarning, stacklevel=2)
