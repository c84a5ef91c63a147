"""The sample file and the manual page, made from the table of settings.

python -m relocd.config.document --sample   > etc/relocd-config.sxp
python -m relocd.config.document --markdown > docs/config.md
"""

from __future__ import annotations

import re
import sys
import textwrap
from collections.abc import Callable, Iterator

from relocd.config.keys import KEYS, SECTIONS, Key, Section

_WIDTH = 78
_QUOTED = re.compile(r"(?<!\w)'([^']+)'(?!\w)")  # a value in a paragraph, not an apostrophe

_SAMPLE_HEAD = """\
The configuration of relocd, the relocation daemon.

relocd moves running virtual machines ("domains") between this host and others. It reads this file when it
starts, by default from /etc/relocd/relocd-config.sxp.

Every setting is shown with its default, and switched off by the '#' before it. To change one, remove that '#'
and put your value in place of the default. Settings that are not here have their default too, so a file with
the two or three lines that differ is as good as this one.

A setting is written (name value). A value with spaces or special characters goes in quotes, 'like this', and
a backslash in quotes is written twice. '#' begins a comment. Of a setting that appears twice the first counts.
What cannot be is reported with its line and column, and relocd does not start with it. Names that relocd does
not know are reported and overlooked.

After a change, 'systemctl reload relocd' puts a new allow-list, new limits and new timeouts into force at once.
The address and port, the driver and the log change when relocd is started again; domains keep running meanwhile.

An old xend-config.sxp can be used as it is: xend-relocation-port is understood as xen-relocation-port, and so
on. relocd says which of its settings have no meaning any more, and which have become stricter.

To begin with, most hosts need one change: name the other hosts in xen-relocation-hosts-allow below.
"""

_MARKDOWN_HEAD = """\
# relocd-config.sxp

The configuration file of relocd, `/etc/relocd/relocd-config.sxp` unless `--config` names another. The sample,
[etc/relocd-config.sxp](../etc/relocd-config.sxp), shows every setting with its default.

This page is made from the table of settings: `python -m relocd.config.document --markdown`.

## How it is written

    # The hosts that domains come from, and a limit for what is sent to them.
    (xen-relocation-hosts-allow '^hosta\\\\.example\\\\.org$ ^192\\\\.0\\\\.2\\\\.[0-9]+$')
    (xen-relocation-max-bandwidth 100)

- A setting is `(name value)`. `#` begins a comment to the end of the line. Order does not matter; of a setting
  that appears twice the first counts, and the second is reported.
- A value with spaces, parentheses or `#` goes in quotes, single or double. In quotes a backslash is written
  twice. An escape that does not exist, such as `'\\.'`, keeps its backslash.
- Yes is `yes y 1 on true t`, no is `no n 0 off false f`, in upper or lower case.
- A setting that takes several values has them in one text with white space between them, or one after the other:
  `(xen-relocation-disk-paths /dev /srv)`.
- An error is reported as `file:line:column`, and relocd does not start. A name that relocd does not know is
  reported, together with the name that comes nearest, and overlooked.
- `systemctl reload relocd` (SIGHUP) reads the file again. The allow-list, limits and timeouts change at once; the
  address and port, the driver and the log when relocd is started again. A file with an error changes nothing.
"""

_MARKDOWN_TAIL = """\
## Files of xend

An `xend-config.sxp` loads as it is.

- Every name that begins with `xen-` may begin with `xend-`: `xend-relocation-port` is `xen-relocation-port`.
  `dom0-min-mem`, `console-limit`, `loglevel` and `logfile` have kept their names and meanings.
- Settings that only xend had are reported one by one, each with what takes its place, and change nothing.
- `xend-relocation-hosts-allow` has become stricter, and each difference in a file is reported:
  expressions match in full, where xend compared the beginning only (`^localhost` let in `localhost.example.org`);
  an empty list lets in nobody, where it let in everyone; an extra space means nothing, where it let in everyone;
  a name counts only if it leads back to the address.
- Without `xend-relocation-hosts-allow` xend let in everyone, and without `xend-relocation-server` it did not
  listen. relocd listens, and lets in its own host only.
"""


def sample() -> str:
    """The text of etc/relocd-config.sxp."""
    blocks = [_comment(_SAMPLE_HEAD), *map(_sample_section, SECTIONS)]
    return "\n\n".join(blocks) + "\n"


def _sample_section(section: Section) -> str:
    rule = "#" * _WIDTH
    title = "\n".join([rule, _comment(section.title), rule])
    intro = [_comment(section.intro)] if section.intro else []
    return "\n\n".join([title, *intro, *map(_sample_key, section.keys)])


def _sample_key(key: Key) -> str:
    return f"{_comment(key.help)}\n#\n{_comment(_facts(key))}\n#({key.name} {key.default_text})"


def _facts(key: Key) -> str:
    """Default, range and unit in a line."""
    unit = f" {key.kind.unit}" if key.kind.unit else ""
    return f"Default: {_default(key)}{unit}. Allowed: {key.kind.range}{unit}."


def _default(key: Key) -> str:
    return "empty" if key.default_text == "''" else key.default_text


def _comment(text: str) -> str:
    lines = [line for part in text.strip().split("\n\n") for line in (*_wrap(part, _WIDTH - 2), "")]
    return "\n".join(f"# {line}".rstrip() for line in lines[:-1])


def _wrap(text: str, width: int) -> list[str]:
    return textwrap.wrap(text, width, break_long_words=False, break_on_hyphens=False)


def markdown() -> str:
    """The text of docs/config.md."""
    blocks = [_MARKDOWN_HEAD, _overview(), *map(_markdown_section, SECTIONS), _MARKDOWN_TAIL]
    return "\n".join(blocks)


def _overview() -> str:
    head = ["## All settings", "", "| setting | default | unit | allowed |", "|---|---|---|---|"]
    rows = [
        f"| [`{key.name}`](#{key.name}) | {_code(key)} | {key.kind.unit} | {key.kind.range} |" for key in KEYS
    ]
    return "\n".join([*head, *rows]) + "\n"


def _markdown_section(section: Section) -> str:
    lines = [f"## {section.title}", ""]
    if section.intro:
        lines += [*_wrap(section.intro, 110), ""]
    for key in section.keys:
        lines += [*_markdown_key(key), ""]
    return "\n".join(lines)


def _markdown_key(key: Key) -> Iterator[str]:
    unit = f" {key.kind.unit}" if key.kind.unit else ""
    yield from [f"### {key.name}", ""]
    yield from _wrap(_QUOTED.sub(r"`'\1'`", key.help), 110)
    yield from ["", f"Default {_code(key)}{unit}; {key.kind.range}{unit}."]
    if key.aliases:
        yield f"Also `{'`, `'.join(key.aliases)}`."


def _code(key: Key) -> str:
    return f"`{key.default_text}`".replace("|", "\\|")


_PAGES: dict[str, Callable[[], str]] = {"--sample": sample, "--markdown": markdown}


def main(arguments: list[str]) -> int:
    """Print the page that was asked for."""
    if len(arguments) != 1 or arguments[0] not in _PAGES:
        print(f"usage: python -m relocd.config.document {'|'.join(_PAGES)}", file=sys.stderr)
        return 2
    print(_PAGES[arguments[0]](), end="")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
