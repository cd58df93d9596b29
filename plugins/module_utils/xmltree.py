# Copyright: (c) 2026, kvm.storage contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Places in libvirt's XML: found, made and parsed in one way.

A place is a path such as source/host/@name. The namespaces are those of libvirt's storage pool page.
"""

from __future__ import annotations

import functools

try:
    from lxml import etree
except ImportError:  # reconcile respawns or names the package before anything here is called
    etree = None  # type: ignore[assignment]

NAMESPACES = {
    "fs": "http://libvirt.org/schemas/storagepool/fs/1.0",
    "rbd": "http://libvirt.org/schemas/storagepool/rbd/1.0",
}


def parse(text: str):
    """The tree of XML that libvirt wrote; entities and DTDs are never followed."""
    parser = etree.XMLParser(resolve_entities=False, no_network=True, load_dtd=False, remove_blank_text=True)
    return etree.fromstring(text.encode(), parser)


def text(tree) -> str:
    """The XML that is handed to libvirt."""
    return etree.tostring(tree, encoding="unicode", pretty_print=True)


def new(tag: str, **attributes: str):
    """A tree with nothing but its root."""
    return etree.Element(tag, attributes)


def qualified(tag: str) -> str:
    """fs:option becomes lxml's {namespace}option."""
    prefix, colon, name = tag.partition(":")
    return f"{{{NAMESPACES[prefix]}}}{name}" if colon else tag


@functools.cache
def split(path: str) -> tuple[str, str]:
    """A path as lxml's path of elements, and its attribute, which is empty for an element's text."""
    steps = path.split("/")
    attribute = steps.pop()[1:] if steps[-1].startswith("@") else ""
    return "/".join(map(qualified, steps)) or ".", attribute


def parted(path: str) -> tuple[str, str]:
    """The path of an element's parent, and its own tag."""
    folder, dummy, tag = path.rpartition("/")
    return folder, tag


def find_all(tree, path: str) -> list:
    """Every element at a path, in document order."""
    return tree.findall(split(path)[0])


def make(tree, path: str):
    """The first element at a path, made where it is missing."""
    for step in path.split("/"):
        if step.startswith("@"):
            break
        child = tree.find(qualified(step))
        tree = append(tree, step) if child is None else child
    return tree


def append(parent, tag: str):
    """One more child element, with its namespace declared where it has one.

    libvirt's schema wants the elements of other namespaces last.
    """
    prefix, colon, dummy = tag.partition(":")
    nsmap = {prefix: NAMESPACES[prefix]} if colon else None
    child = etree.SubElement(parent, qualified(tag), nsmap=nsmap)
    foreign = [one for one in parent if isinstance(one.tag, str) and one.tag.startswith("{")]
    if foreign and not colon:
        foreign[0].addprevious(child)
    return child


def remove(tree, path: str) -> None:
    """Everything at a path goes; a parent that is left empty stays."""
    attribute = split(path)[1]
    for element in find_all(tree, path):
        if attribute:
            element.attrib.pop(attribute, None)
        elif element is not tree:
            element.getparent().remove(element)


def get(tree, path: str) -> str | None:
    """The text or attribute at a path; None where there is none."""
    elements, attribute = split(path)
    element = tree.find(elements)
    if element is None:
        return None
    return element.get(attribute) if attribute else (element.text or "")


def put(tree, path: str, value: str) -> None:
    """Set the text or attribute at a path."""
    element, attribute = make(tree, path), split(path)[1]
    if attribute:
        element.set(attribute, value)
    else:
        element.text = value
