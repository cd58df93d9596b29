#!/usr/bin/python
# Copyright: (c) 2026, kvm.storage contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: volume_upload
short_description: Bring an image into a volume
version_added: "1.0.0"
author: kvm.storage contributors (@kvm-storage)
description:
  - Makes a volume of an image that is a file of the controller or of the host, or that the host gets from a web server.
    It may be compressed.
  - No tool reads the image before its headers have been looked at. An image that leads to other files (a backing file,
    a data file, extents), that is another one than declared, or that is damaged, is refused.
  - The volume gets its name when it is whole and its O(checksum) is right. LUNs and partitions, which can't be hidden,
    are marked until all of it is there. What an interrupted run leaves is removed or done again by the next one.
  - An image of another format than the volume's is converted, and compared afterwards. Holes stay holes.
  - A volume that is there is left alone. With O(replace) it is compared, and overwritten where a guest would see
    something else in it.
extends_documentation_fragment:
  - kvm.storage.attributes
  - kvm.storage.attributes.actiongroup_storage
  - kvm.storage.connection
  - kvm.storage.change
  - kvm.storage.overcommit
  - kvm.storage.volume
attributes:
  check_mode:
    support: full
    details: Where O(replace) meets a volume that is there, its content is compared, for which an image is downloaded.
  diff_mode:
    support: full
options:
  src:
    description:
      - The image, a file of the controller. It is looked for in C(files), as by M(ansible.builtin.copy).
      - It is brought to the host first, unless the volume is there already. With a local connection it is read where it
        is.
    type: path
  remote_src:
    description: Whether O(src) is a file, or a block device, of the host.
    type: bool
    default: false
  url:
    description:
      - The image, got by the host from a web server. Redirects are followed, never from https to http.
      - What breaks off is taken up again where the server allows it, and else begun anew.
      - http needs a O(checksum), and one that does not come over http itself.
    type: str
  checksum:
    description:
      - The checksum of the image as it is given (so of the compressed file), such as V(sha256:0123...). sha256, sha384
        and sha512 are taken.
      - The address of a list of checksums, such as V(sha256:https://example.org/SHA256SUMS), has it looked up there by
        the name of the file.
    type: str
  compression:
    description:
      - How the image is compressed. V(auto) tells it by its first bytes.
      - V(zst) takes the command C(zstd), unless Python has it.
    type: str
    choices: [auto, none, gz, xz, bz2, zst]
    default: auto
  source_format:
    description: The format of the image, decompressed. It must be what the image itself says.
    type: str
    choices: [raw, qcow2, vmdk, vdi, vpc, vhdx]
    required: true
  max_size:
    description: The most bytes that the image may have, compressed or not, and that a guest may see of it.
    type: str
    default: 64TiB
  staging_directory:
    description:
      - Where an image is put that must be downloaded or decompressed before it can be converted. It has no name there.
      - The directory of the pool, or C(/var/tmp) where it has none.
    type: path
  url_username:
    description: The user name for O(url). It is not sent on to another server.
    type: str
  url_password:
    description: The password.
    type: str
  url_networks:
    description:
      - Networks whose addresses O(url), a redirect and the list of O(checksum) may lead to although they are not
        public, such as V(10.1.0.0/16). Others are refused, loopback and the metadata services of clouds among them.
    type: list
    elements: str
  url_timeout:
    description: Seconds that the server may be silent.
    type: int
    default: 30
  validate_certs:
    description: Whether what comes must be proven, by the certificate of the server or by a O(checksum).
    type: bool
    default: true
  ca_path:
    description: A file of the host with the certificates of the authorities to trust, in place of the system's.
    type: path
  replace:
    description:
      - Whether a volume that is there is overwritten if its content is another. It must not be in use, or stand below
        others.
      - LUNs, which are there from the beginning, need it.
    type: bool
    default: false
  capacity:
    description: The size that a guest sees. That of the image unless given; it can't be less.
    type: str
  format:
    description:
      - The format of the volume. That of the image where the pool can hold it, else that of the pool.
  preallocation:
    description: How much of a new volume is written although the image has nothing there.
    type: str
    choices: ["off", metadata, falloc, full]
  thin_pool:
    description: The LVM thin pool that a new volume is made in.
    type: str
  compat:
    description: The version of a qcow2. With this or one of the next options the image is written anew.
    type: str
    choices: ["0.10", "1.1"]
  cluster_size:
    description: The cluster size of a qcow2.
    type: str
  lazy_refcounts:
    description: Whether a qcow2 postpones its reference counts.
    type: bool
  extended_l2:
    description: Whether a qcow2 has subclusters.
    type: bool
  nocow:
    description: Whether a file on btrfs is exempt from copy on write.
    type: bool
  permissions:
    description: Mode, owner, group and label of the file. Its mode is V(0600) unless given.
    type: dict
    suboptions:
      mode:
        description: Octal digits in quotes, such as V('0600').
        type: raw
      owner:
        description: Name or number of a user.
        type: str
      group:
        description: Name or number of a group.
        type: str
      label:
        description: The SELinux label.
        type: str
seealso:
  - module: kvm.storage.volume_download
  - module: kvm.storage.volume_clone
"""

EXAMPLES = r"""
- name: Make a disk of an image on the controller
  kvm.storage.volume_upload:
    pool: images
    name: appliance.qcow2
    src: appliance.qcow2
    source_format: qcow2
    capacity: 20GiB

- name: Make a raw disk of a compressed VMDK of the host
  kvm.storage.volume_upload:
    pool: images
    name: legacy.raw
    src: /srv/import/legacy.vmdk.xz
    remote_src: true
    source_format: vmdk
    format: raw

- name: Get the image of a distribution, whose checksum stands in a list beside it
  kvm.storage.volume_upload:
    pool: images
    name: debian-13.qcow2
    url: https://cloud.debian.org/images/cloud/trixie/latest/debian-13-genericcloud-amd64.qcow2
    checksum: sha512:https://cloud.debian.org/images/cloud/trixie/latest/SHA512SUMS
    source_format: qcow2

- name: Keep a disk as its image is
  kvm.storage.volume_upload:
    pool: images
    name: rescue.raw
    src: /srv/import/rescue.raw.gz
    remote_src: true
    source_format: raw
    replace: true
"""

RETURN = r"""
actions:
  description: The steps that were taken, or in check mode would be, in order.
  returned: always
  type: list
  elements: str
  sample: [upload]
pool:
  description: The pool of the volume.
  returned: success
  type: str
  sample: images
volume_path:
  description: The path of the volume on the host, or its name in a network pool.
  returned: when the volume is there
  type: str
  sample: /srv/images/debian-13.qcow2
checksum:
  description: The checksum of the image as it was given, where one was asked for.
  returned: when the image was read
  type: str
  sample: sha256:9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08
transferred:
  description: C(bytes) of the image, C(seconds) that they took, and the C(rate) in bytes a second.
  returned: when the volume was written
  type: dict
plan:
  description: Counts of what is created, updated, deleted and unchanged, and the same as one line.
  returned: success
  type: dict
restart_needed:
  description: Always V(false) for a volume.
  returned: success
  type: bool
code:
  description:
    - A word for the error that stays the same between releases, such as C(checksum_mismatch), C(backing_file) or
      C(decompression_bomb).
  returned: failure
  type: str
"""

from ansible_collections.kvm.storage.plugins.module_utils.upload import run


def main() -> None:
    run()


if __name__ == "__main__":
    main()
